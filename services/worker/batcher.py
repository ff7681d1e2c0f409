"""The micro-batcher. Pure: time is an argument.

Work-conserving: whoever asks gets what is there at once, unless the model wants to wait for company
(`max_queue_delay`); while the device is busy nobody asks, and the next batch gathers.
"""

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Entry(Generic[T]):
    """One request in line.

    Attributes:
        rows: how much of a batch it fills.
        shape: only entries of equal shape share a batch.
        arrived, deadline: seconds on the clock that `take` is given.
        cancelled: skipped when its turn comes.
    """

    item: T
    rows: int
    shape: Hashable
    arrived: float
    deadline: float
    cancelled: bool = False


@dataclass(slots=True)
class Batcher(Generic[T]):
    """A line of entries.

    Attributes:
        max_rows: most rows in a batch; 0: every entry runs alone.
        max_delay: seconds that the oldest entry may wait for company.
    """

    max_rows: int
    max_delay: float = 0.0
    _line: deque[Entry[T]] = field(default_factory=deque)

    def add(self, entry: Entry[T]) -> None:
        """Puts an entry at the end of the line."""
        self._line.append(entry)

    def __len__(self) -> int:
        return len(self._line)

    def ready_at(self) -> float | None:
        """When the next batch should run; None if nothing waits. In the past: now."""
        if not self._line:
            return None
        if not self.max_delay or not self.max_rows or self._rows() >= self.max_rows:
            return self._line[0].arrived
        oldest = self._line[0]
        # Nobody waits so long for company that his own time is up: half of it at most.
        return oldest.arrived + min(self.max_delay, (oldest.deadline - oldest.arrived) / 2)

    def take(self, now: float) -> tuple[list[Entry[T]], list[Entry[T]]]:
        """The next batch, and those in front of it that nobody waits for any more.

        The batch holds the oldest entry and, in order, what fits beside it.
        """
        batch: list[Entry[T]] = []
        dropped: list[Entry[T]] = []
        passed: list[Entry[T]] = []
        rows = 0
        while self._line:
            entry = self._line.popleft()
            if entry.cancelled or entry.deadline <= now:
                dropped.append(entry)
            elif not batch:
                batch.append(entry)
                rows = entry.rows
            elif entry.shape == batch[0].shape and rows + entry.rows <= self.max_rows:
                batch.append(entry)
                rows += entry.rows
            else:
                passed.append(entry)
            if batch and rows >= self.max_rows:
                break
        self._line.extendleft(reversed(passed))
        return batch, dropped

    def drop(self, now: float) -> list[Entry[T]]:
        """Takes those out that nobody waits for any more, wherever they stand."""
        line, self._line = self._line, deque[Entry[T]]()
        dropped: list[Entry[T]] = []
        for entry in line:
            (dropped if entry.cancelled or entry.deadline <= now else self._line).append(entry)
        return dropped

    def clear(self) -> list[Entry[T]]:
        """Everything in line, which is then empty."""
        entries = list(self._line)
        self._line.clear()
        return entries

    def _rows(self) -> int:
        return sum(entry.rows for entry in self._line)
