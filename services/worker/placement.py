"""Which models a worker keeps in memory. Pure: a snapshot and the time go in, what to evict comes out.

The least recently used goes first (what Belady's rule becomes without a view of the future). Three things stay,
whatever their age: what has work in hand, what is being loaded, and what has not yet been kept for as long as its load
was worth. The last bounds how often memory can turn over: a working set larger than the budget queues, it does not
thrash.
"""

from collections.abc import Iterable
from dataclasses import dataclass

Key = tuple[str, int]

# A model that took long to load is kept longer than the minimum: this many times as long as its load took.
LOADS_KEPT = 2.0


@dataclass(frozen=True, slots=True)
class Resident:
    """A model in memory, or on its way there. Times are seconds on one monotonic clock.

    Attributes:
        size: bytes that it is charged.
        used_at: when its last request came.
        keep_until: not evicted before.
        pinned: it has work in hand, or is being loaded or evicted.
        wanted: it is the version that callers get who name none, or one that an alias or a rollout names.
    """

    key: Key
    size: int
    used_at: float
    keep_until: float
    pinned: bool = False
    wanted: bool = True


@dataclass(frozen=True, slots=True)
class Plan:
    """How a model gets its room.

    Attributes:
        fits: there is room once `evict` is gone.
        evict: in the order in which to evict; empty where it does not fit.
        never: it is larger than the whole budget.
        retry_at: when a resident becomes evictable by age alone; None: only work that ends makes room.
    """

    fits: bool
    evict: tuple[Key, ...] = ()
    never: bool = False
    retry_at: float | None = None


def make_room(need: int, residents: Iterable[Resident], *, budget: int, now: float, patience: float = 0.0) -> Plan:
    """Room for `need` bytes.

    Args:
        budget: bytes for all residents together; 0: no limit.
        patience: seconds for which a young resident whose turn it is to leave is waited for. To pass it over would be
            to evict a model that is asked for more often.
    """
    held = list(residents)
    missing = need + sum(resident.size for resident in held) - budget
    if budget == 0 or missing <= 0 or need == 0:
        return Plan(fits=True)
    if need > budget:
        return Plan(fits=False, never=True)
    idle = sorted((item for item in held if not item.pinned), key=lambda item: item.used_at)
    victims: list[Resident] = []
    for resident in idle:
        if missing <= 0:
            break
        if resident.keep_until <= now:
            victims.append(resident)
            missing -= resident.size
        elif resident.keep_until <= now + patience:
            break
    if missing > 0:
        young = [resident.keep_until for resident in idle if resident.keep_until > now]
        return Plan(fits=False, retry_at=min(young, default=None))
    return Plan(fits=True, evict=tuple(_needed(victims, -missing)))


def overdue(residents: Iterable[Resident], *, idle: float, now: float) -> list[Key]:
    """Models that nothing names any more and that were not asked for in `idle` seconds: drained, they may go."""
    return [
        resident.key
        for resident in residents
        if not resident.wanted and not resident.pinned and max(resident.used_at + idle, resident.keep_until) <= now
    ]


def keep_until(now: float, load_seconds: float, minimum: float) -> float:
    """When a model that was loaded just now may be evicted; a minimum of 0 protects nothing."""
    return now + max(minimum, LOADS_KEPT * load_seconds) if minimum else now


def _needed(victims: list[Resident], spare: int) -> Iterable[Key]:
    """Small ones need not go where a larger one makes room alone; the most recently used are spared first."""
    spared: set[Key] = set()
    for resident in reversed(victims):
        if resident.size <= spare:
            spare -= resident.size
            spared.add(resident.key)
    return (resident.key for resident in victims if resident.key not in spared)
