"""Whose turn it is on the device, where several models share it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from services.common.fair import CREDIT, Shares
from services.worker.overdrafts import Overdrafts


def _always() -> bool:
    return True


@dataclass(frozen=True, slots=True, eq=False)
class _Place:
    """Somebody in line."""

    given: "asyncio.Future[None]"
    urgent: Callable[[], bool]
    had: Callable[[], float]
    level: int


class Turns:
    """A lock that is handed on to whoever in line is urgent, of those to whose tenant has had least, then by level.

    Both are asked when the lock becomes free, not when one took his place: a lane that came with background work may
    have callers by then.

    Attributes:
        shares: what each tenant has had of the device, in seconds.
        overdrafts: who of them is over his part.
    """

    def __init__(self) -> None:
        self.shares = Shares(CREDIT)
        self.overdrafts = Overdrafts()
        self._taken = False
        self._line: list[_Place] = []

    @property
    def contended(self) -> bool:
        """Somebody waits for it."""
        return bool(self._line)

    @asynccontextmanager
    async def mine(
        self, urgent: Callable[[], bool] = _always, had: Callable[[], float] | None = None, level: int = 0
    ) -> AsyncIterator[None]:
        """Holds the turn for the block.

        Args:
            had: what the tenant has had for whom it is; None: it is for nobody.
            level: lower ones are first, of the same tenant's.
        """
        await self._wait(_Place(asyncio.get_running_loop().create_future(), urgent, had or self._nobodys, level))
        try:
            yield
        finally:
            self._pass_on()

    def _nobodys(self) -> float:
        return self.shares.had("")

    async def _wait(self, place: "_Place") -> None:
        if not self._taken:
            self._taken = True
            return
        self._line.append(place)
        try:
            await place.given
        except asyncio.CancelledError:
            if not place.given.cancelled():  # it had just been given the turn
                self._pass_on()
            raise

    def _pass_on(self) -> None:
        """The turn stays taken where somebody waits, so nobody comes in between."""
        self._line = [place for place in self._line if not place.given.done()]
        self._taken = bool(self._line)
        if self._line:
            place = min(self._line, key=lambda place: (not place.urgent(), place.had(), place.level))
            self._line.remove(place)
            place.given.set_result(None)
