"""The metrics of gateways and workers, typed. A record costs under a microsecond: keep a model's object at hand."""

from collections.abc import Callable

from services.common.telemetry.ledger import Attributes, Counter, Family, Gauge, Histogram, Ledger
from services.common.telemetry.requests import MODEL_INFER

# Seconds; OpenTelemetry's advice for durations of calls, with finer steps below 5 ms.
DURATIONS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
SIZES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0)

CODES = (
    *("OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS"),
    *("PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED"),
    *("INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"),
)


def _of(model: str, version: int) -> dict[str, str | int]:
    return {"headrace.model.name": model, "headrace.model.version": version}


def _counter(family: Family, attributes: Attributes) -> Counter:
    family.add(attributes, counter := Counter())
    return counter


def _gauge(family: Family, attributes: Attributes, source: Callable[[], float] | None = None) -> Gauge:
    family.add(attributes, gauge := Gauge(source))
    return gauge


def _histogram(family: Family, attributes: Attributes, bounds: tuple[float, ...]) -> Histogram:
    family.add(attributes, histogram := Histogram(bounds))
    return histogram


class GatewayModel:
    """What a gateway counts of one model version.

    Args:
        timed: how long requests take is told. That of those in the background, who let everybody else go first, is
            nobody's concern, and would hide how long callers wait.
    """

    __slots__ = ("_by_code", "_durations", "_in_flight", "_labels", "_requests", "queue_full", "republished")

    def __init__(self, owner: "GatewayInstruments", labels: dict[str, str | int], *, timed: bool) -> None:
        self._labels = labels
        self._requests = owner.requests
        self._durations = owner.durations if timed else None
        self._in_flight = _gauge(owner.in_flight, labels)
        self._by_code: dict[int, tuple[Counter, Histogram]] = {}
        self.queue_full = _counter(owner.queue_full, labels)
        self.republished = _counter(owner.republished, labels)

    @property
    def in_flight(self) -> int:
        """Accepted and not yet answered."""
        return int(self._in_flight.value)

    def began(self) -> None:
        """A request was accepted; exactly one `finished` follows."""
        self._in_flight.add(1)

    def finished(self, code: int, seconds: float) -> None:
        """It was answered or failed with `code` (a google.rpc.Code) after `seconds`."""
        self._in_flight.add(-1)
        series = self._by_code.get(code) or self._series(code)
        series[0].value += 1
        series[1].record(seconds)

    def _series(self, code: int) -> tuple[Counter, Histogram]:
        name = CODES[code] if 0 <= code < len(CODES) else str(code)
        labels = {**self._labels, "rpc.response.status_code": name}
        rpc = {**labels, "rpc.system.name": "grpc", "rpc.method": MODEL_INFER}
        times = Histogram(DURATIONS) if self._durations is None else _histogram(self._durations, rpc, DURATIONS)
        made = _counter(self._requests, labels), times
        self._by_code[code] = made
        return made


class GatewayTenant:
    """What a gateway counts of one tenant. Tenants come from a file, so they are few."""

    __slots__ = ("_by_code", "_compute", "_requests", "name")

    def __init__(self, owner: "GatewayInstruments", name: str) -> None:
        self.name = name
        self._requests = owner.tenant_requests
        self._by_code: dict[int, Counter] = {}
        self._compute = _counter(owner.tenant_compute, {"headrace.tenant": name})

    def finished(self, code: int, compute_seconds: float = 0.0) -> None:
        """One of his requests was answered, having cost so much, or failed with `code` (a google.rpc.Code)."""
        counter = self._by_code.get(code)
        if counter is None:
            name = CODES[code] if 0 <= code < len(CODES) else str(code)
            labels = {"headrace.tenant": self.name, "rpc.response.status_code": name}
            counter = self._by_code[code] = _counter(self._requests, labels)
        counter.value += 1
        self._compute.value += round(compute_seconds * 1e6)


class GatewayInstruments:
    """What a gateway counts. Made once a process."""

    def __init__(self, ledger: Ledger) -> None:
        family = ledger.family
        self.requests = family("headrace.requests", "{request}", "Requests answered or failed, by status")
        self.durations = family("rpc.server.call.duration", "s", "Duration of ModelInfer calls at the gateway")
        self.in_flight = family("headrace.requests.in_flight", "{request}", "Accepted and not yet answered")
        self.queue_full = family("headrace.queue.full", "{request}", "Requests refused because the queue was full")
        self.republished = family("headrace.requests.republished", "{request}", "Requests published again")
        claims = family("headrace.claims", "{claim}", "Workers' claims on redelivered requests, by verdict")
        self._shadows = family("headrace.shadows", "{request}", "Copies for versions on trial, by what they showed")
        self.tenant_requests = family("headrace.tenant.requests", "{request}", "Requests of a tenant, by status")
        self.tenant_compute = family("headrace.tenant.compute", "us", "Compute time that a tenant's requests took")
        self._models: dict[tuple[str, int, bool], GatewayModel] = {}
        self._tenants: dict[str, GatewayTenant] = {}
        self._outcomes: dict[tuple[str, int, str], Counter] = {}
        # From the start: of a counter that appears with its first count, Prometheus sees no increase.
        self._verdicts = {
            verdict: _counter(claims, {"headrace.claim.verdict": verdict}) for verdict in ("run", "drop", "give_up")
        }

    def of(self, model: str, version: int, *, background: bool = False) -> GatewayModel:
        """The counters of one model version's callers, or of what lets them go first."""
        found = self._models.get((model, version, background))
        if found is None:
            labels = {**_of(model, version), **({"headrace.priority": "background"} if background else {})}
            found = self._models[model, version, background] = GatewayModel(self, labels, timed=not background)
        return found

    def tenant(self, name: str) -> GatewayTenant:
        """The counters of one tenant."""
        found = self._tenants.get(name)
        if found is None:
            found = self._tenants[name] = GatewayTenant(self, name)
        return found

    def claim(self, verdict: str) -> None:
        """A claim was answered: "run", "drop" or "give_up"."""
        self._verdicts[verdict].add()

    def shadow(self, model: str, version: int, outcome: str) -> None:
        """A copy "matched", "differed", "failed" or was "dropped"."""
        if (counter := self._outcomes.get((model, version, outcome))) is None:
            labels = {**_of(model, version), "headrace.shadow.outcome": outcome}
            counter = self._outcomes[model, version, outcome] = _counter(self._shadows, labels)
        counter.add()

    def forget(self, model: str, version: int) -> None:
        """The version is gone: its series are no longer exported."""
        self._shadows.forget(_of(model, version))
        self._outcomes = {key: counter for key, counter in self._outcomes.items() if key[:2] != (model, version)}
        gone = [self._models.pop((model, version, background), None) for background in (False, True)]
        if any(gone):
            for family in (self.requests, self.durations, self.in_flight, self.queue_full, self.republished):
                family.forget(_of(model, version))


class WorkerModel:
    """What a worker counts of one model version; times in seconds."""

    __slots__ = ("_compute", "_loaded", "_queue", "_rows", "_wait", "failed")

    def __init__(self, owner: "WorkerInstruments", labels: dict[str, str | int]) -> None:
        self._rows = _histogram(owner.rows, labels, SIZES)
        self._compute = _histogram(owner.compute, labels, DURATIONS)
        self._queue = _histogram(owner.queue, labels, DURATIONS)
        self._wait = _histogram(owner.wait, labels, DURATIONS)
        self._loaded = _gauge(owner.loaded, labels)
        self.failed = _counter(owner.failed, labels)

    def batch(self, rows: int, compute: float) -> None:
        """A batch ran."""
        self._rows.record(rows)
        self._compute.record(compute)

    def waited(self, queue: float, batch: float) -> None:
        """One request was in the broker's queue and then in this worker's line for so long."""
        self._queue.record(queue)
        self._wait.record(batch)

    def loaded(self, loaded: bool) -> None:
        """The model is in memory, or no longer."""
        self._loaded.set(int(loaded))


class WorkerInstruments:
    """What a worker counts. Made once a process."""

    def __init__(self, ledger: Ledger) -> None:
        family = ledger.family
        self.rows = family("headrace.batch.rows", "{row}", "Rows in a batch")
        self.compute = family("headrace.batch.compute.duration", "s", "The model's run of one batch")
        self.queue = family("headrace.queue.duration", "s", "From acceptance at the gateway to the worker")
        self.wait = family("headrace.batch.wait.duration", "s", "From the worker's hands to the start of the batch")
        self.loaded = family("headrace.models.loaded", "{model}", "Models in this worker's memory")
        self.failed = family("headrace.batch.failed", "{request}", "Requests on which the model failed")
        self._models: dict[tuple[str, int], WorkerModel] = {}

    def of(self, model: str, version: int) -> WorkerModel:
        """The counters of one model version."""
        found = self._models.get((model, version))
        if found is None:
            found = self._models[model, version] = WorkerModel(self, _of(model, version))
        return found

    def forget(self, model: str, version: int) -> None:
        """The version is gone: its series are no longer exported."""
        if self._models.pop((model, version), None) is not None:
            for family in (self.rows, self.compute, self.queue, self.wait, self.loaded, self.failed):
                family.forget(_of(model, version))
