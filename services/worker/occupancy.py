"""One model version's way into the worker's memory and out of it, with its consumer raised and lowered on the way."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from enum import Enum, auto
from typing import Any, Protocol

from headrace.v1.work_pb2 import Envelope
from services.worker.loading import Loader
from services.worker.placement import Key
from services.worker.residents import NoRoom, Residents
from services.worker.subscription import Subscription

log = logging.getLogger(__name__)

# How long a worker without room leaves a model to others before it offers itself again.
ASIDE_SECONDS = 2.0


class Entered(Enum):
    """How the way into memory ended."""

    LOADED = auto()
    FAILED = auto()  # the loader knows why; it is tried again after a while
    NO_ROOM = auto()  # for now: others have work, or came a moment ago


class Parts(Protocol):
    """Models that another one runs: they are in memory in their own right, and before it."""

    async def enter(self, holder: "Occupancy", *, urgent: bool) -> tuple[Entered, str]:
        """Brings all in and adds `holder` to each one's holders, or none; with the reason where that fails."""

    def let_go(self, holder: "Occupancy") -> None:
        """They may leave memory, as far as `holder` is concerned."""


class Occupancy:
    """Implements Occupant.

    Args:
        busy: the lane has work in hand.
        close: what there is to do before the model is dropped.
        parts: models that this one runs.

    Attributes:
        holders: models in memory, or on their way there, that run this one: ensembles. They leave before it does.
    """

    def __init__(
        self,
        key: Key,
        loader: Loader[Any],
        residents: Residents,
        subscription: Subscription,
        *,
        busy: Callable[[], bool],
        close: Callable[[], Awaitable[None]] | None = None,
        parts: Parts | None = None,
    ) -> None:
        self.holders: set[Occupancy] = set()
        self._used_at = asyncio.get_running_loop().time()
        self._wanted = False
        self._parts = parts
        self._entering = asyncio.Lock()
        self._key = key
        self._loader = loader
        self._residents = residents
        self._subscription = subscription
        self._busy = busy
        self._close = close
        self._aside_until = 0.0

    def want(self, wanted: bool) -> None:
        """Something names this version, or no longer does."""
        self._wanted = wanted
        self._residents.expect(self._key, self._loader.size if wanted else 0)

    def came(self, envelope: Envelope) -> None:
        """Requests came for the model."""
        self._used_at = asyncio.get_running_loop().time()
        self._subscription.shared |= any(work.tenant for work in envelope.requests)

    @property
    def wanted(self) -> bool:
        """Something names this version: it is loaded before it is asked for, and kept, where there is room."""
        return self._wanted or any(holder.wanted for holder in self.holders)

    @property
    def used_at(self) -> float:
        """When the last request came, on the event loop's clock."""
        return max([self._used_at, *(holder.used_at for holder in self.holders)])

    @used_at.setter
    def used_at(self, at: float) -> None:
        self._used_at = at

    @property
    def busy(self) -> bool:
        """There is work in hand that needs the model."""
        return self._entering.locked() or self._busy() or any(holder.busy for holder in self.holders)

    async def enter(self, *, urgent: bool) -> Entered:
        """Loads the model, if there is room.

        From the moment that room is reserved, this worker consumes before others: requests that follow the first wait
        here for the load instead of making other workers load the same.

        Args:
            urgent: somebody waits for it: others may be evicted. Otherwise it comes in only if all that is wanted fits:
                a choice among them is left to those who ask.
        """
        async with self._entering:  # for itself, or for an ensemble
            loader = self._loader
            if loader.loaded:
                return Entered.LOADED
            if not loader.may_try():
                return Entered.FAILED
            if not urgent and await self._residents.crowded():
                return Entered.NO_ROOM
            if self._parts is None:
                return await self._load(urgent=urgent)
            return await self._enter_with(self._parts, urgent=urgent)

    async def _enter_with(self, parts: Parts, *, urgent: bool) -> Entered:
        """The models that it runs, then itself."""
        await self._rank(loaded=True)
        entered, reason = await parts.enter(self, urgent=urgent)
        if entered is Entered.LOADED:
            entered = await self._load(urgent=urgent)
        elif entered is Entered.FAILED:
            self._loader.refuse(reason)
        if entered is not Entered.LOADED:
            parts.let_go(self)
            await self._rank(loaded=False)
        return entered

    async def _load(self, *, urgent: bool) -> Entered:
        loader = self._loader
        try:
            await self._residents.admit(self._key, loader.size, self, urgent=urgent)
        except NoRoom as error:
            if error.never:
                loader.refuse(str(error))
            return Entered.FAILED if error.never else Entered.NO_ROOM
        await self._rank(loaded=True)
        if not await loader.load():
            self._residents.left(self._key)
            await self._rank(loaded=False)
            return Entered.FAILED
        self._residents.settled(self._key, loader.size, loader.seconds)
        if self._aside_until:
            await self._subscription.open(loaded=True)
        return Entered.LOADED

    async def _rank(self, *, loaded: bool) -> None:
        """Consumes before those who would have to load the model, or behind those who have it; if it consumes at all:
        a model that is only run by others does not."""
        if self._subscription.is_open:
            await self._subscription.open(loaded=loaded)

    async def leave(self) -> bool:
        """Out of memory, unless work came: those that run it first, then its rank among consumers, then itself."""
        for holder in list(self.holders):
            if not await holder.leave():
                return False
        await self._rank(loaded=False)
        if self.busy or not self._loader.loaded:
            if self._loader.loaded:
                await self._rank(loaded=True)
            return False
        self._loader.unload()
        if self._close is not None:
            await self._close()
        self._residents.left(self._key)
        if self._parts is not None:
            self._parts.let_go(self)
        log.info("evicted %s version %d", *self._key)
        return True

    async def stand_aside(self, when_over: Callable[[], None]) -> bool:
        """Leaves the queue to other workers for a while, if there are any: whether it did.

        The lane then hands back what it has: it may come into memory elsewhere.
        """
        if not await self._subscription.has_others():
            return False
        await self._subscription.pause()
        loop = asyncio.get_running_loop()
        self._aside_until = loop.time() + (self._loader.retry_in() or ASIDE_SECONDS)
        loop.call_at(self._aside_until, when_over)
        return True

    async def come_back(self) -> None:
        """Consumes again, once it has stood aside for long enough."""
        if self._aside_until and asyncio.get_running_loop().time() >= self._aside_until:
            self._aside_until = 0.0
            await self._subscription.open(loaded=self._loader.loaded)

    def lost(self) -> None:
        """The model is no longer in memory, and not because it was asked to leave."""
        if self._loader.loaded:
            self._loader.unload()
        self._residents.left(self._key)
        if self._parts is not None:
            self._parts.let_go(self)

    def gone(self) -> None:
        """The version was deleted and its lane has drained."""
        self.lost()
        self.want(False)
