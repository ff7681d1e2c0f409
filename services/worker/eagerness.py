"""Whether a lane's model is to come into memory before it is asked for, and its way there."""

import asyncio
from collections.abc import Callable
from typing import Any

from services.worker.loading import Loader
from services.worker.occupancy import Entered, Occupancy


class Eagerness:
    """What something that names the version (it is the latest, has an alias, is on trial) asks of a lane.

    Args:
        wake: makes the lane look whether it has something to load.

    Attributes:
        pending: the model is to be loaded although nobody has asked for it.
    """

    def __init__(self, eager: bool, occupancy: Occupancy, loader: Loader[Any], wake: Callable[[], None]) -> None:
        self.pending = eager
        self._urgent = False
        self._occupancy = occupancy
        self._loader = loader
        self._wake = wake
        occupancy.want(eager)

    def want(self, wanted: bool, *, now: bool = False) -> None:
        """The version is named, or no longer.

        Args:
            now: load it even if others must leave for it.
        """
        if (wanted and not self._occupancy.wanted) or (now and not self._loader.loaded):
            self._urgent = now
            self.again()
        self._occupancy.want(wanted)

    def again(self) -> None:
        """It is to be loaded, from now on."""
        self.pending = True
        self._wake()

    async def enter(self, *, asked_for: bool) -> Entered:
        """Brings the model into memory; one that nobody asked for and that fails is tried again a while later."""
        eager, self.pending = self.pending, False
        entered = await self._occupancy.enter(urgent=self._urgent or asked_for)
        if entered is Entered.LOADED:
            self._urgent = False
        elif entered is Entered.FAILED and eager:
            self.pending = True
            asyncio.get_running_loop().call_later(self._loader.retry_in(), self._wake)
        return entered
