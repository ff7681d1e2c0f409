"""One request, seen from outside: statistics, metrics and the trace, in one place so that handlers stay plain."""

import asyncio
import time

from headrace.v1.reply_pb2 import Receipt
from services.common.errors import PoisonedRequest, QueueFull, status_of
from services.common.queues import queue_name
from services.common.telemetry.generations import GenerationInstruments
from services.common.telemetry.instruments import GatewayInstruments, GatewayModel, GatewayTenant
from services.common.telemetry.requests import RequestTrace
from services.common.telemetry.setup import Telemetry
from services.gateway.calls import Call
from services.gateway.receipts import compute_seconds
from services.gateway.routes import Route
from services.gateway.stats import ModelStats

CANCELLED = 1
# Codes that speak against a version: UNKNOWN, DEADLINE_EXCEEDED, FAILED_PRECONDITION, INTERNAL, UNAVAILABLE.
SERVERS_FAULT = frozenset({2, 4, 9, 13, 14})


class RouteRecord:
    """What is known of one route since the start: its statistics, and its series for the exporters."""

    __slots__ = ("series", "stats")

    def __init__(self, series: GatewayModel) -> None:
        self.series = series
        self.stats = ModelStats()


class Observed:
    """One request under way; exactly one of `answered` and `failed` ends it.

    Attributes:
        trace: None where the request is not sampled.
    """

    __slots__ = ("_began", "_observer", "_record", "_route", "_tenant", "trace")

    def __init__(
        self,
        observer: "Observer",
        route: Route,
        record: RouteRecord,
        trace: RequestTrace | None,
        tenant: GatewayTenant | None = None,
    ) -> None:
        self._observer = observer
        self._route = route
        self._record = record
        self._began = time.monotonic()
        self._tenant = tenant
        self.trace = trace
        record.series.began()

    def answered(self, rows: int, receipt: Receipt) -> None:
        """It was answered."""
        now = time.monotonic()
        seconds = now - self._began
        self._record.stats.answered(now, time.time_ns() // 1_000_000, seconds, rows, receipt)
        self._record.series.finished(0, seconds)
        if receipt.stages:
            self._observer.ran(rows, receipt)
        if self._tenant is not None:
            self._tenant.finished(0, compute_seconds(receipt, rows))
        if self.trace is not None:
            self._end(self.trace, 0)

    def failed(self, error: BaseException) -> None:
        """It failed, or its caller left."""
        seconds = time.monotonic() - self._began
        left = isinstance(error, asyncio.CancelledError | GeneratorExit)
        code = CANCELLED if left or not isinstance(error, Exception) else status_of(error).grpc
        self._record.series.finished(code, seconds)
        if not left:
            self._record.stats.failed(time.monotonic(), seconds, blamed=code in SERVERS_FAULT)
        if isinstance(error, QueueFull):
            self._record.series.queue_full.add()
        elif isinstance(error, PoisonedRequest):
            self._observer.claimed("give_up")
        if self._tenant is not None:
            self._tenant.finished(code)
        if self.trace is not None:
            self._end(self.trace, code, str(error))

    def _end(self, trace: RequestTrace, code: int, error: str = "") -> None:
        route, tenant = self._route, self._tenant
        name = tenant.name if tenant is not None else ""
        trace.end(code, model=route.name, version=route.version, tenant=name, error=error)


class Observer:
    """Begins observations and keeps the record of every route.

    Args:
        queued: requests are published; otherwise they are run in this process.
    """

    def __init__(self, telemetry: Telemetry, *, queued: bool = True) -> None:
        self._telemetry = telemetry
        self._queued = queued
        self.instruments = self._instruments = GatewayInstruments(telemetry.ledger)
        self.generations = GenerationInstruments(telemetry.ledger)
        self._records: dict[str, RouteRecord] = {}

    def begin(self, call: Call, route: Route) -> Observed:
        """A request came for a route."""
        traceparent = call.metadata.get("traceparent")
        trace = self._telemetry.begin_request(
            traceparent if isinstance(traceparent, str) else None, call.method[1:], queued=self._queued
        )
        tenant = None if call.tenant is None else self._instruments.tenant(call.tenant.name)
        return Observed(self, route, self._record(route), trace, tenant)

    def ran(self, rows: int, receipt: Receipt) -> None:
        """An ensemble's steps ran, too: each counts for its own model, as with Triton."""
        for stage in receipt.stages:
            record = self._record_of(stage.model, stage.version)
            record.stats.ran(time.time_ns() // 1_000_000, rows, receipt, stage.compute_us)

    def republished(self, route: Route) -> None:
        """A request of the route was published again."""
        self._record(route).series.republished.add()

    def claimed(self, verdict: str) -> None:
        """A worker's claim was answered: "run", "drop", or "give_up"."""
        self._instruments.claim(verdict)

    def stats(self, route: Route) -> ModelStats:
        """What the route did since the start."""
        return self._record(route).stats

    def in_flight(self, route: Route) -> int:
        """Requests of the route that have begun and not ended, those that let others go first included."""
        routes = [route] if route.behind is None else [route, route.behind]
        records = (self._records.get(each.queue) for each in routes)
        return sum(record.series.in_flight for record in records if record is not None)

    def forget(self, route: Route) -> None:
        """The version was deleted: nothing of it is exported any more."""
        queues = {route.queue} | ({route.behind.queue} if route.behind is not None else set())
        known = queues & self._records.keys()
        for queue in known:
            del self._records[queue]
        if known:
            self._instruments.forget(route.name, route.version)
            self.generations.forget(route.name, route.version)

    def _record(self, route: Route) -> RouteRecord:
        return self._records.get(route.queue) or self._make(
            route.queue, route.name, route.version, background=route.background
        )

    def _record_of(self, name: str, version: int) -> RouteRecord:
        queue = queue_name(name, version)
        return self._records.get(queue) or self._make(queue, name, version)

    def _make(self, queue: str, name: str, version: int, *, background: bool = False) -> RouteRecord:
        record = self._records[queue] = RouteRecord(self._instruments.of(name, version, background=background))
        return record
