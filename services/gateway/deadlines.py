"""Many deadlines on few timers: one timer of the event loop costs microseconds, an entry here a fraction of one."""

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

# How late a deadline may be noticed. Callers keep their own; this one only frees what waits for them.
TICK_SECONDS = 0.02


class Deadlines(Generic[T]):
    """Calls `passed` with each item within a tick after its deadline, unless it was removed. Needs a running loop.

    Deadlines are on the event loop's clock.
    """

    def __init__(self, passed: Callable[[T], None]) -> None:
        self._passed = passed
        self._due: dict[int, set[T]] = {}

    def add(self, item: T, deadline: float) -> None:
        """Begins to watch an item."""
        tick = int(deadline / TICK_SECONDS) + 1
        due = self._due.get(tick)
        if due is None:
            due = self._due[tick] = set()
            asyncio.get_running_loop().call_at(tick * TICK_SECONDS, self._pass, tick)
        due.add(item)

    def remove(self, item: T, deadline: float) -> None:
        """Forgets an item, given the deadline that it was added with; nothing if that has passed."""
        due = self._due.get(int(deadline / TICK_SECONDS) + 1)
        if due is not None:
            due.discard(item)

    def _pass(self, tick: int) -> None:
        for item in self._due.pop(tick):
            self._passed(item)
