"""Fair shares of what tenants compete for: who has had least is next. Pure.

Each tenant's virtual time is what he was given over his weight; who waits and has the lowest is served next, so that
those who always wait are given the same (by weight), whatever each of them sends. Who comes after a pause begins where
service is now, less a little: a short pause is a credit, so that somebody who has less than his part finds several
requests at once served before a flood, but a long one is worth no more. Without the credit this is start-time fair
queueing (Goyal, Vin and Cheng, "Start-time Fair Queuing", 1996), which needs no knowledge of the future; for language
models "Fairness in Serving Large Language Models" (Sheng et al., OSDI 2024) calls the same a virtual token counter.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Generic, Protocol, TypeVar

T = TypeVar("T")

# Requests at once, of a tenant who had less than his part, that go before those of others. In simulation more changes
# nothing; and a flood begins with as much.
CREDIT = 4


class Shares:
    """Virtual times; several lines may share them, in any one unit (seconds of compute, tokens).

    Args:
        credit: how far behind a tenant may be after a pause, in turns of the usual cost: so many he is served before
            others, once.
    """

    def __init__(self, credit: float = 0.0) -> None:
        self._turns = credit
        # The usual cost of a turn, and the credit that it makes.
        self._usual = self._credit = 0.0
        self._had: dict[str, float] = {}
        self._weights: dict[str, float] = {}
        self._now = 0.0

    def had(self, tenant: str) -> float:
        """His virtual time."""
        return self._had.get(tenant, self._now - self._credit)

    def least(self, tenants: Iterable[str]) -> str:
        """Who of them has had least; the first of equals."""
        return min(tenants, key=self.had)

    def join(self, tenant: str, weight: float) -> None:
        """He waits for something again, after he waited for nothing."""
        self._weights[tenant] = weight
        self._had[tenant] = max(self.had(tenant), self._now - self._credit)

    def serve(self, tenant: str, cost: float) -> None:
        """It is his turn, and is thought to cost so much."""
        begins = self.had(tenant)
        self._now = max(self._now, begins)
        self._usual += (cost - self._usual) / 16 if self._usual else cost
        self._credit = self._turns * self._usual
        self._had[tenant] = begins + cost / self._weights.get(tenant, 1.0)

    def correct(self, tenant: str, difference: float) -> None:
        """It cost so much more than was thought, or less."""
        self._had[tenant] = self.had(tenant) + difference / self._weights.get(tenant, 1.0)


class Line(Protocol[T]):
    """One tenant's items: a deque, or what has an order of its own (`levels.py`)."""

    def __len__(self) -> int:
        """How many there are."""

    def __iter__(self) -> Iterator[T]:
        """In their order."""

    def append(self, item: T, /) -> None:
        """Where it belongs if it is new."""

    def appendleft(self, item: T, /) -> None:
        """Where it belongs if it was taken before."""

    def popleft(self) -> T:
        """Takes the first."""


class FairLine(Generic[T]):
    """A line of items in which each tenant's stand in their order. What is taken has to be charged by who takes it.

    Args:
        line: makes a tenant's line.
    """

    def __init__(self, shares: Shares, line: Callable[[], Line[T]] = deque) -> None:
        self.shares = shares
        self._line = line
        self._lines: dict[str, Line[T]] = {}
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[T]:
        for line in self._lines.values():
            yield from line

    def tenants(self) -> Iterable[str]:
        """Those with something in line."""
        return self._lines.keys()

    def heads(self) -> Iterator[T]:
        """The first item of each tenant."""
        return (next(iter(line)) for line in self._lines.values())

    def add(self, item: T, tenant: str = "", weight: float = 1.0) -> None:
        """Puts an item behind its tenant's others."""
        line = self._lines.get(tenant)
        if line is None:
            line = self._lines[tenant] = self._line()
            self.shares.join(tenant, weight)
        line.append(item)
        self._length += 1

    def pop(self, last: Collection[str] = ()) -> T:
        """Takes the first item of who has had least; of `last`, if nobody else waits."""
        lines = self._lines
        if len(lines) == 1:
            return self.pop_of(next(iter(lines)))
        first = [tenant for tenant in lines if tenant not in last] if last else None
        return self.pop_of(self.shares.least(first or lines))

    def pop_of(self, tenant: str) -> T:
        """Takes a tenant's first item."""
        line = self._lines[tenant]
        item = line.popleft()
        if not line:
            del self._lines[tenant]
        self._length -= 1
        return item

    def put_back(self, item: T, tenant: str = "") -> None:
        """What was taken and could not be used comes first again; put several back in the reverse of their order."""
        self._lines.setdefault(tenant, self._line()).appendleft(item)
        self._length += 1

    def clear(self) -> None:
        """Nothing waits any more."""
        self._lines.clear()
        self._length = 0


class FairWindow(Generic[T]):
    """Lets items of a line go a few at a time, so that a flood waits here and not in front of everybody.

    Attributes:
        size: most items gone and not yet over, of all tenants together.
        own: so many a tenant may have under way at a level even if the window is full: who has little under way never
            waits for those with much, nor a high level for the low ones.
        cost: what one item is thought to cost, in the unit of the shares; learns from what they did cost.
    """

    def __init__(
        self,
        shares: Shares,
        size: int = 1,
        own: int = 1,
        line: Callable[[], Line[T]] = deque,
        level: Callable[[T], int] = lambda item: 0,
    ) -> None:
        self.size = size
        self.own = own
        self.cost = 0.001
        self._level = level
        self._line: FairLine[T] = FairLine(shares, line)
        self._under_way: dict[tuple[str, int], int] = {}
        self._total = 0

    @property
    def under_way(self) -> int:
        """Items gone and not yet over."""
        return self._total

    def add(self, item: T, tenant: str, weight: float) -> None:
        """One more waits."""
        self._line.add(item, tenant, weight)

    def next(self) -> T | None:
        """The next item that may go; it is under way until it is `over`, or `skipped`."""
        may = self._line.tenants()
        if self._total >= self.size:
            may = [
                tenant
                for tenant, first in zip(may, self._line.heads(), strict=True)
                if self._under_way.get((tenant, self._level(first)), 0) < self.own
            ]
        if not may:
            return None
        shares = self._line.shares
        tenant = shares.least(may)
        shares.serve(tenant, self.cost)
        item = self._line.pop_of(tenant)
        place = tenant, self._level(item)
        self._under_way[place] = self._under_way.get(place, 0) + 1
        self._total += 1
        return item

    def over(self, tenant: str, charged: float, cost: float | None, level: int = 0) -> None:
        """An item is over.

        Args:
            charged: the `cost` of this window when it went.
            cost: what it did cost; None: nobody knows.
        """
        self._left(tenant, level)
        if cost is not None:
            self._line.shares.correct(tenant, cost - charged)
            self.cost += (cost - self.cost) / 8

    def skipped(self, tenant: str, level: int = 0) -> None:
        """An item was given up while it waited: it costs nothing."""
        self._left(tenant, level)
        self._line.shares.correct(tenant, -self.cost)

    def _left(self, tenant: str, level: int) -> None:
        self._under_way[tenant, level] -= 1
        self._total -= 1
