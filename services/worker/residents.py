"""The worker's memory: who is in it, who must leave for whom. Decides by `placement`, acts through `Occupant`s."""

import asyncio
import ctypes
import gc
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from services.common.errors import HeadraceError
from services.worker.placement import Key, Plan, Resident, keep_until, make_room, overdue

log = logging.getLogger(__name__)

# How long a request waits here for room before it is left to workers that may have some.
PATIENCE_SECONDS = 1.0
SWEEP_SECONDS = 5.0


class NoRoom(HeadraceError):
    """Nothing can be evicted now; `never`: the model is larger than the whole budget."""

    def __init__(self, message: str, *, never: bool) -> None:
        super().__init__(message)
        self.never = never


class Occupant(Protocol):
    """What takes memory: a model version's lane."""

    used_at: float

    @property
    def wanted(self) -> bool:
        """Something names it."""

    @property
    def busy(self) -> bool:
        """It has work in hand."""

    async def leave(self) -> bool:
        """Gives its memory back, unless work came meanwhile; whether it did."""


@dataclass(slots=True)
class _Place:
    occupant: Occupant
    size: int
    keep_until: float = 0.0
    moving: bool = True


class Residents:
    """Everything in this worker's memory.

    Args:
        budget: bytes; 0: no limit.
        residency: seconds that a model is kept at least.
        idle: seconds after which a version that nothing names any more is unloaded.
        known: set once the whole catalogue has been seen.
        clock: monotonic seconds.

    Attributes:
        loads, evictions: since the start.
        assembling: held by who brings in several models that must be there together.
    """

    def __init__(
        self, *, budget: int, residency: float, idle: float, known: asyncio.Event, clock: Callable[[], float]
    ) -> None:
        self.budget = budget
        self.loads = 0
        self.evictions = 0
        self.assembling = asyncio.Lock()
        self._residency = residency
        self._idle = idle
        self._known = known
        self._clock = clock
        self._places: dict[Key, _Place] = {}
        self._expected: dict[Key, int] = {}
        self._turn = asyncio.Lock()
        self._changed = asyncio.Event()

    @property
    def used(self) -> int:
        """Bytes charged to all residents."""
        return sum(place.size for place in self._places.values())

    def expect(self, key: Key, size: int) -> None:
        """A version of `size` bytes is wanted in memory; 0: no longer."""
        self._expected[key] = size
        if not size:
            del self._expected[key]

    async def known(self) -> None:
        """Returns once the whole catalogue has been seen."""
        await self._known.wait()

    async def crowded(self) -> bool:
        """What is wanted does not fit into memory together: nothing should come in before it is asked for.

        Loading what fits would fill every worker of a fleet with the same few, whoever wants them.
        """
        await self._known.wait()
        return 0 < self.budget < sum(self._expected.values())

    async def admit(self, key: Key, need: int, occupant: Occupant, *, urgent: bool) -> None:
        """Reserves room, evicting others if it is urgent.

        Raises:
            NoRoom: there is none without evicting, or all that could go has work or came a moment ago.
        """
        give_up_at = self._clock() + PATIENCE_SECONDS
        async with self._turn:
            while True:
                now = self._clock()
                patience = max(0.0, give_up_at - now)
                plan = make_room(need, self._snapshot(), budget=self.budget, now=now, patience=patience)
                if plan.fits and not plan.evict:
                    self._places[key] = _Place(occupant, need)
                    return
                if plan.never or not urgent or (not plan.fits and now >= give_up_at):
                    raise NoRoom(self._why_not(key, need, plan), never=plan.never)
                if plan.fits:
                    await self._evict(plan.evict)
                else:
                    await self._wait(plan, give_up_at)

    def settled(self, key: Key, size: int, load_seconds: float) -> None:
        """The model is in memory and takes `size` bytes."""
        place = self._places[key]
        place.size, place.moving = size, False
        place.keep_until = keep_until(self._clock(), load_seconds, self._residency)
        self.loads += 1
        self.changed()

    def left(self, key: Key) -> None:
        """The model is out of memory, or never came in."""
        self._places.pop(key, None)
        self.changed()

    def changed(self) -> None:
        """Work ended somewhere: who waits for room looks again."""
        self._changed.set()

    async def sweep(self) -> None:
        """Unloads for ever what nothing names any more and nobody asks for."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            async with self._turn:
                await self._evict(overdue(self._snapshot(), idle=self._idle, now=self._clock()))

    async def _wait(self, plan: Plan, give_up_at: float) -> None:
        until = give_up_at if plan.retry_at is None else min(plan.retry_at, give_up_at)
        self._changed.clear()
        try:
            await asyncio.wait_for(self._changed.wait(), max(0.001, until - self._clock()))
        except TimeoutError:
            return

    async def _evict(self, keys: "tuple[Key, ...] | list[Key]") -> None:
        """Asks each to leave; one that got work meanwhile stays, and the next plan looks elsewhere."""
        gone = 0
        for key in keys:
            place = self._places.get(key)
            if place is None:
                continue
            place.moving = True
            if await place.occupant.leave():
                self._places.pop(key, None)
                gone += 1
            else:
                # Used just now, whatever its clock says: not the next plan's first choice again.
                place.moving, place.occupant.used_at = False, self._clock()
        if gone:
            self.evictions += gone
            await asyncio.to_thread(give_back_memory)

    def _snapshot(self) -> list[Resident]:
        return [
            Resident(
                key,
                place.size,
                place.occupant.used_at,
                place.keep_until,
                pinned=place.moving or place.occupant.busy,
                wanted=place.occupant.wanted,
            )
            for key, place in self._places.items()
        ]

    def _why_not(self, key: Key, need: int, plan: Plan) -> str:
        wants = f"model '{key[0]}' version {key[1]} needs {mebibytes(need)}"
        if plan.never:
            return (
                f"{wants}, over this worker's memory budget of {mebibytes(self.budget)}; raise HEADRACE_MEMORY_BUDGET"
            )
        free = mebibytes(max(0, self.budget - self.used))
        return f"{wants} and {free} of {mebibytes(self.budget)} are free; what could make room is in use"


def mebibytes(size: int) -> str:
    """A size for people."""
    return f"{size / 2**20:,.1f} MiB"


def give_back_memory() -> None:
    """Freed memory goes back to the system. Blocks for milliseconds.

    glibc keeps what was freed below its heap's top: over a thousand loads and evictions, 240 MB of ONNX models came to
    720 MB without the trim and 310 MB with it.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none
    if trim is not None:
        trim(0)
