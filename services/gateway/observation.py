"""One request, seen from outside: statistics, metrics and the trace, in one place so that handlers stay plain."""

import asyncio
import time
from collections import defaultdict

from headrace.v1.reply_pb2 import Receipt
from services.gateway.calls import Call
from services.gateway.routes import Route
from services.gateway.stats import ModelStats


class Observed:
    """One request under way."""

    __slots__ = ("_began", "_stats", "traceparent")

    def __init__(self, stats: ModelStats, traceparent: str) -> None:
        self._stats = stats
        self._began = time.monotonic()
        self.traceparent = traceparent

    def answered(self, rows: int, receipt: Receipt) -> None:
        """It was answered."""
        now = time.monotonic()
        self._stats.answered(now, time.time_ns() // 1_000_000, now - self._began, rows, receipt)

    def failed(self, error: BaseException) -> None:
        """It failed, or its caller left."""
        if not isinstance(error, asyncio.CancelledError | GeneratorExit):
            self._stats.failed(time.monotonic() - self._began)


class Observer:
    """Begins observations and keeps the statistics of every route."""

    def __init__(self) -> None:
        self._stats: defaultdict[str, ModelStats] = defaultdict(ModelStats)

    def begin(self, call: Call, route: Route) -> Observed:
        """A request was accepted for a route."""
        traceparent = call.metadata.get("traceparent", "")
        return Observed(self._stats[route.queue], traceparent if isinstance(traceparent, str) else "")

    def stats(self, route: Route) -> ModelStats:
        """What the route did since the start."""
        return self._stats[route.queue]
