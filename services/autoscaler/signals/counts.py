"""Counters of processes that come and go, as one that never falls. Pure."""

from collections import defaultdict
from dataclasses import dataclass, field

RATE_SECONDS = 5.0

# (who counts, what is counted)
Source = tuple[str, str]


@dataclass(slots=True)
class Counts:
    """Sums the growth of many sources' counters. One that falls was started anew, and grew from 0."""

    _last: dict[Source, float] = field(default_factory=dict)
    _total: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))

    def note(self, who: str, what: str, count: float) -> float:
        """Returns by how much the counter grew since it was last seen: 0 at first sight, since when is not known."""
        before = self._last.get((who, what), count)
        growth = count - before if count >= before else count
        self._last[who, what] = count
        self._total[what] += growth
        return growth

    def total(self, what: str) -> float:
        """Over all sources, those included that are gone."""
        return self._total[what]

    def keep(self, present: set[str]) -> None:
        """Forgets the last counts of sources that are not `present`."""
        for source in [source for source in self._last if source[0] not in present]:
            del self._last[source]


@dataclass(slots=True)
class Rate:
    """Events a second, over the last seconds: an average that fades."""

    value: float = 0.0
    total: float = 0.0
    at: float | None = None

    def to(self, now: float, total: float) -> float:
        """With one more look at the total; returns the rate."""
        if self.at is not None and now > self.at:
            share = min(1.0, (now - self.at) / RATE_SECONDS)
            self.value += share * ((total - self.total) / (now - self.at) - self.value)
        self.at, self.total = now, total
        return self.value
