"""Sequences in their order: higher priority first, then first come."""

from bisect import bisect_left, insort
from collections.abc import Iterator
from operator import attrgetter

from services.worker.llm.sequence import Sequence

_ORDER = attrgetter("order")


class Line:
    """A sorted list; adding and removing cost a binary search and a short memmove."""

    def __init__(self) -> None:
        self._items: list[Sequence] = []

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Sequence]:
        return iter(self._items)

    def __getitem__(self, place: int) -> Sequence:
        return self._items[place]

    def add(self, sequence: Sequence) -> None:
        """Puts a sequence where it belongs."""
        insort(self._items, sequence, key=_ORDER)

    def remove(self, sequence: Sequence) -> None:
        """Takes a sequence out, which must be there."""
        place = bisect_left(self._items, sequence.order, key=_ORDER)
        assert self._items[place] is sequence
        del self._items[place]
