"""Which requests are traced. Pure: time is an argument.

Parent-based: a caller's sampled trace context is always followed and an unsampled one never; requests that bring none
begin a trace of their own as long as a token bucket has tokens.
"""

import re
from dataclasses import dataclass

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII | re.DOTALL)
_SAMPLED = 0x01


@dataclass(frozen=True, slots=True)
class TraceParent:
    """A W3C trace context: ids that are not 0, and whether the caller records."""

    trace_id: int
    span_id: int
    sampled: bool

    def __str__(self) -> str:
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-{int(self.sampled):02x}"


def parse(text: str) -> TraceParent | None:
    """Reads a `traceparent` header; None where it is not one, so that a bad header never fails a request."""
    match = _TRACEPARENT.fullmatch(text)
    if match is None:
        return None
    version, trace_id, span_id, flags, rest = match.groups()
    # Later versions may add fields; this one has none, and ff is no version.
    if version == "ff" or (version == "00" and rest):
        return None
    parsed = TraceParent(int(trace_id, 16), int(span_id, 16), bool(int(flags, 16) & _SAMPLED))
    return parsed if parsed.trace_id and parsed.span_id else None


@dataclass(slots=True)
class TokenBucket:
    """Lets `rate` things a second pass, and bursts of a second's worth (at least one, if any at all)."""

    rate: float
    _tokens: float = -1.0
    _filled_at: float = 0.0

    def take(self, now: float) -> bool:
        """Whether one may pass at `now` (seconds, monotonic)."""
        if self.rate <= 0:
            return False
        most = max(1.0, self.rate)
        if self._tokens < 0:
            self._tokens, self._filled_at = most, now
        elif now > self._filled_at:
            self._tokens = min(most, self._tokens + (now - self._filled_at) * self.rate)
            self._filled_at = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True
