"""How many requests a second a model takes, or a tenant sends, at one gateway: a token bucket. Pure."""

from dataclasses import dataclass
from math import ceil


@dataclass(slots=True)
class TokenBucket:
    """Full at first; `rate` tokens come each second, at most `burst` are kept, each request takes one."""

    rate: float
    burst: int
    _tokens: float = -1.0
    _at: float = 0.0

    def take(self, now: float, *, leave: float = 0.0) -> float:
        """Takes a token, if `leave` others stay. Returns 0, or in how many seconds there will be enough."""
        if self._tokens < 0:
            self._tokens, self._at = float(self.burst), now
        self._tokens = min(self.burst, self._tokens + (now - self._at) * self.rate)
        self._at = now
        if self._tokens < 1 + leave:
            return (1 + leave - self._tokens) / self.rate
        self._tokens -= 1
        return 0.0


def bucket_of(per_second: float, burst: int) -> TokenBucket | None:
    """The bucket of a limit as people write it: no burst is as many as come in a second. None: no limit."""
    return TokenBucket(per_second, burst or max(1, ceil(per_second))) if per_second else None
