"""The past: sums to average over windows, and the highest of what was said lately. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sums:
    """Everything since the beginning, at one moment: two of them give the averages between.

    Attributes:
        requests: that arrived.
        work: seconds of one worker's time that they ask for.
        backlog_seconds: requests accepted and unanswered, integrated over time.
    """

    at: float
    requests: float = 0.0
    work: float = 0.0
    backlog_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Averages:
    """Over a window: requests a second, workers kept busy by what arrives, requests accepted and unanswered."""

    rate: float = 0.0
    load: float = 0.0
    backlog: float = 0.0


@dataclass(frozen=True, slots=True)
class History:
    """Sums, oldest first. The oldest one lies at or just before the start of the longest window."""

    sums: tuple[Sums, ...] = ()

    def add(self, latest: Sums, keep: float) -> "History":
        """With one more moment; what lies more than `keep` seconds back is dropped, but for one to start from."""
        sums = (*self.sums, latest)
        begin = 0
        while begin + 1 < len(sums) and sums[begin + 1].at <= latest.at - keep:
            begin += 1
        return History(sums[begin:])

    def over(self, window: float) -> Averages:
        """Averages over the last `window` seconds.

        A history that is shorter counts as silence before its beginning: two requests in the first half second are no
        burst yet.
        """
        if len(self.sums) < 2:
            return Averages()
        last = self.sums[-1]
        first = next(sums for sums in reversed(self.sums) if sums.at <= last.at - window or sums is self.sums[0])
        span = max(window, last.at - first.at)
        return Averages(
            rate=(last.requests - first.requests) / span,
            load=(last.work - first.work) / span,
            backlog=(last.backlog_seconds - first.backlog_seconds) / span,
        )


@dataclass(frozen=True, slots=True)
class Peaks:
    """The highest of the numbers said within a window: those that a later, higher one hides are forgotten."""

    said: tuple[tuple[float, int], ...] = ()

    def add(self, now: float, number: int, keep: float) -> "Peaks":
        """With one more number, without those said `keep` seconds ago and before."""
        return Peaks((*((at, said) for at, said in self.said if at > now - keep and said > number), (now, number)))

    def highest(self) -> int:
        """0 where nothing was said."""
        return self.said[0][1] if self.said else 0
