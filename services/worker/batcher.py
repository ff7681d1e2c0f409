"""The micro-batcher. Pure: time is an argument.

Work-conserving: whoever asks gets what is there at once, unless the model wants to wait for company
(`max_queue_delay`); while the device is busy nobody asks, and the next batch gathers. Who is taken is decided then, at
the last moment: in order of arrival, or where several tenants wait, by what each has had of the device. Tenants who
are over their part come last, and fill a batch up only as far as it stays short (`overdrafts.py`).

There are two lines. The second, the background, is taken from only when the first is empty, and never into the same
batch: the first goes as if there were no second, but for the one batch that may be running when it comes.
"""

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from services.common.fair import FairLine, Shares
from services.common.levels import LevelLine
from services.worker.batch_cost import BatchCost
from services.worker.overdrafts import STRETCH, Overdrafts

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Entry(Generic[T]):
    """One request in line.

    Attributes:
        rows: how much of a batch it fills.
        shape: only entries of equal shape share a batch.
        arrived, deadline: seconds on the clock that `take` is given.
        cancelled: skipped when its turn comes.
        background: it stands in the second line.
        tenant, weight: whose it is, and his share.
        level: of the same tenant's, those of a lower number are taken first, where the batcher has `levels`.
        charged: seconds of the device that its tenant was charged for it.
    """

    item: T
    rows: int
    shape: Hashable
    arrived: float
    deadline: float
    cancelled: bool = False
    background: bool = False
    tenant: str = ""
    weight: float = 1.0
    level: int = 0
    charged: float = 0.0


@dataclass(slots=True)
class Batcher(Generic[T]):
    """Two lines of entries.

    Attributes:
        max_rows: most rows in a batch; 0: every entry runs alone.
        max_delay: seconds that the oldest entry may wait for company.
        shares: what each tenant has had, of all batchers of this device.
        overdrafts: who of them is over his part, likewise.
        levels: entries have levels that count.
        row_seconds: what a row is thought to cost; learns from the batches that `ran`.
    """

    max_rows: int
    max_delay: float = 0.0
    shares: Shares = field(default_factory=Shares)
    overdrafts: Overdrafts = field(default_factory=Overdrafts)
    row_seconds: float = 0.001
    levels: bool = False
    _cost: BatchCost = field(init=False, default_factory=BatchCost)
    # Somebody has named a tenant; until then it is not counted who is over.
    _shared: bool = field(init=False, default=False)
    _line: FairLine[Entry[T]] = field(init=False)
    _behind: FairLine[Entry[T]] = field(init=False)

    def __post_init__(self) -> None:
        line = LevelLine[Entry[T]] if self.levels else deque[Entry[T]]
        self._line, self._behind = FairLine(self.shares, line), FairLine(self.shares, line)

    def add(self, entry: Entry[T]) -> None:
        """Puts an entry at the end of its line."""
        self._shared = self._shared or bool(entry.tenant)
        (self._behind if entry.background else self._line).add(entry, entry.tenant, entry.weight)

    def had(self) -> float:
        """What he has had who comes first here: which of a device's batchers is next."""
        return min(map(self.shares.had, (self._line or self._behind).tenants()), default=0.0)

    def ran(self, batch: list[Entry[T]], seconds: float, now: float) -> None:
        """A batch took the device so long: each tenant bears his rows' part of it, whatever was thought before."""
        rows = sum(entry.rows for entry in batch)
        for entry in batch:
            self.shares.correct(entry.tenant, seconds * entry.rows / rows - entry.charged)
        if self._shared:
            self._count(batch, rows, seconds, now)
        self.row_seconds += (seconds / rows - self.row_seconds) / 8

    def _count(self, batch: list[Entry[T]], rows: int, seconds: float, now: float) -> None:
        self._cost.learn(rows, seconds)
        tenants: dict[str, list[Entry[T]]] = {}
        for entry in batch:
            tenants.setdefault(entry.tenant, []).append(entry)
        for tenant, entries in tenants.items():
            cost = self._cost.in_full(sum(entry.rows for entry in entries), max(rows, self.max_rows))
            self.overdrafts.served(tenant, entries[0].weight, cost, len(entries), now)

    def __len__(self) -> int:
        return len(self._line) + len(self._behind)

    @property
    def urgent(self) -> bool:
        """Somebody waits who is not in the background."""
        return bool(self._line)

    def ready_at(self) -> float | None:
        """When the next batch should run; None if nothing waits. In the past: now."""
        line = self._line or self._behind
        if not line:
            return None
        oldest = min(line.heads(), key=_arrived)
        if not self.max_delay or not self.max_rows or sum(entry.rows for entry in line) >= self.max_rows:
            return oldest.arrived
        # Nobody waits so long for company that his own time is up: half of it at most.
        return oldest.arrived + min(self.max_delay, (oldest.deadline - oldest.arrived) / 2)

    def take(self, now: float) -> tuple[list[Entry[T]], list[Entry[T]]]:
        """The next batch, and those in front of it that nobody waits for any more.

        The batch holds the entry that is next and, in order, what fits beside it.
        """
        batch, dropped = self._take(self._line, now)
        # The heads of the background are looked at in any case: its line may stand for long.
        for head in list(self._behind.heads()):
            if head.cancelled or head.deadline <= now:
                dropped.append(self._behind.pop_of(head.tenant))
        if not batch and self._behind:
            batch, further = self._take(self._behind, now)
            dropped += further
        return batch, dropped

    def _take(self, line: FairLine[Entry[T]], now: float) -> tuple[list[Entry[T]], list[Entry[T]]]:
        batch: list[Entry[T]] = []
        dropped: list[Entry[T]] = []
        passed: list[Entry[T]] = []
        rows, most = 0, float(self.max_rows)
        over = self.overdrafts.over(now)
        while line:
            entry = line.pop(over)
            if entry.tenant in over:  # and so are all who come after him
                most = min(most, self._cost.rows_within(STRETCH))
            if entry.cancelled or entry.deadline <= now:
                dropped.append(entry)
            elif not batch or (entry.shape == batch[0].shape and rows + entry.rows <= most):
                batch.append(entry)
                rows += entry.rows
                entry.charged = entry.rows * self.row_seconds
                self.shares.serve(entry.tenant, entry.charged)
            else:
                passed.append(entry)
            if batch and rows >= most:
                break
        for entry in reversed(passed):
            line.put_back(entry, entry.tenant)
        return batch, dropped

    def drop(self, now: float) -> list[Entry[T]]:
        """Takes those out that nobody waits for any more, wherever they stand."""
        dropped: list[Entry[T]] = []
        for entry in self.clear():
            if entry.cancelled or entry.deadline <= now:
                dropped.append(entry)
            else:
                self.add(entry)
        return dropped

    def clear(self) -> list[Entry[T]]:
        """Everything in line, which is then empty."""
        entries = [*self._line, *self._behind]
        self._line.clear()
        self._behind.clear()
        return entries


def _arrived(entry: Entry[T]) -> float:
    return entry.arrived
