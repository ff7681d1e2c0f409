"""What became of a version's requests in a window, in a form that adds up over gateways. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil, log

# Bucket n holds latencies up to 0.1 ms × 1.1^n: percentiles are right within a tenth.
_SMALLEST_MS = 0.1
_GROWTH = 1.1


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Requests of one version.

    Attributes:
        failed: those that failed through no fault of their callers.
        answered: latency bucket → requests.
    """

    failed: int = 0
    answered: Mapping[int, int] = field(default_factory=dict)

    @property
    def requests(self) -> int:
        """All of them."""
        return self.failed + sum(self.answered.values())

    @property
    def error_rate(self) -> float:
        """0 without requests."""
        return self.failed / self.requests if self.requests else 0.0

    def p99_ms(self) -> float:
        """Of those answered, in milliseconds; 0 without any."""
        left = sum(self.answered.values()) * 99 // 100
        for bucket, count in sorted(self.answered.items()):
            if left < count:
                return _SMALLEST_MS * _GROWTH**bucket
            left -= count
        return 0.0

    def plus(self, other: "Outcomes") -> "Outcomes":
        """Both together."""
        answered = dict(self.answered)
        for bucket, count in other.answered.items():
            answered[bucket] = answered.get(bucket, 0) + count
        return Outcomes(self.failed + other.failed, answered)


def bucket_of(seconds: float) -> int:
    """Where a latency belongs."""
    return max(0, ceil(log(max(seconds * 1000, 1e-9) / _SMALLEST_MS, _GROWTH)))
