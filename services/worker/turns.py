"""Whose turn it is on the device, where several models share it."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager


def _always() -> bool:
    return True


class Turns:
    """A lock that is handed on to the first in line who is urgent, and to the first in line where nobody is.

    Whether one is urgent is asked when the lock becomes free, not when he took his place: a lane that came with
    background work may have callers by then.
    """

    def __init__(self) -> None:
        self._taken = False
        self._line: deque[tuple[asyncio.Future[None], Callable[[], bool]]] = deque()

    @asynccontextmanager
    async def mine(self, urgent: Callable[[], bool] = _always) -> AsyncIterator[None]:
        """Holds the turn for the block."""
        await self._wait(urgent)
        try:
            yield
        finally:
            self._pass_on()

    async def _wait(self, urgent: Callable[[], bool]) -> None:
        if not self._taken:
            self._taken = True
            return
        place = asyncio.get_running_loop().create_future(), urgent
        self._line.append(place)
        try:
            await place[0]
        except asyncio.CancelledError:
            if place in self._line:
                self._line.remove(place)
            else:  # it had just been given the turn
                self._pass_on()
            raise

    def _pass_on(self) -> None:
        """The turn stays taken where somebody waits, so nobody comes in between."""
        place = next((place for place in self._line if place[1]()), self._line[0] if self._line else None)
        if place is None:
            self._taken = False
            return
        self._line.remove(place)
        place[0].set_result(None)
