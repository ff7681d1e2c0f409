"""A line in which some stand before others, whenever they came. Pure.

Levels are Triton's: 1 is the highest, and while higher ones keep coming, lower ones wait.
"""

from collections import deque
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar


class Levelled(Protocol):
    """What can stand in such a line."""

    @property
    def level(self) -> int:
        """Lower numbers are first."""


L = TypeVar("L", bound=Levelled)


class LevelLine(Generic[L]):
    """A deque for each level, with a deque's methods as far as lines need them."""

    def __init__(self) -> None:
        self._levels: dict[int, deque[L]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._levels.values()))

    def __bool__(self) -> bool:
        return bool(self._levels)

    def __iter__(self) -> Iterator[L]:
        for level in sorted(self._levels):
            yield from self._levels[level]

    def append(self, item: L) -> None:
        """Behind those of its level and of higher ones."""
        self._levels.setdefault(item.level, deque()).append(item)

    def appendleft(self, item: L) -> None:
        """Before those of its level, behind those of higher ones."""
        self._levels.setdefault(item.level, deque()).appendleft(item)

    def popleft(self) -> L:
        """Takes the first of the highest level."""
        level = min(self._levels)
        line = self._levels[level]
        item = line.popleft()
        if not line:
            del self._levels[level]
        return item
