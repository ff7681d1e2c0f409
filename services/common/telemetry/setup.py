"""Telemetry of one process: built from settings, passed explicitly, flushed on the way out."""

import os
import resource as rusage
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version as package_version
from pathlib import Path

from opentelemetry.metrics import CallbackOptions, Meter, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from prometheus_client import CollectorRegistry

from services.common.settings import ServiceSettings
from services.common.telemetry.batches import Batch, TracedRequest, record_batch
from services.common.telemetry.endpoint import metrics_endpoint
from services.common.telemetry.export import LedgerPeriodicReader, LedgerPrometheusReader, LedgerView
from services.common.telemetry.ledger import Ledger
from services.common.telemetry.logs import logging_to_stderr
from services.common.telemetry.otlp import Collector
from services.common.telemetry.requests import MODEL_INFER, RequestSampler, RequestTrace
from services.common.telemetry.spans import ReservedIds, SpanWriter
from services.common.tls import Tls

SCOPE = "headrace"
FLUSH_SECONDS = 2.0
SPANS_EVERY_MS = 1000
METRICS_EVERY_MS = 10_000


@dataclass(frozen=True, slots=True)
class Telemetry:
    """What a service records with.

    Attributes:
        ledger: give it to GatewayInstruments or WorkerInstruments.
        meter: for rare metrics; a record on the hot path belongs into the ledger.
        spans: None where nothing is exported.
        sampler: behind `begin_request`.
        metrics_address: host:port of the Prometheus endpoint, with its real port; empty: none.
    """

    ledger: Ledger
    meter: Meter
    spans: SpanWriter | None
    sampler: RequestSampler
    metrics_address: str = ""

    def begin_request(
        self, traceparent: str | None, method: str = MODEL_INFER, *, queued: bool = True
    ) -> RequestTrace | None:
        """The request's trace if it is sampled, else None; see RequestSampler.begin."""
        return self.sampler.begin(traceparent, method, queued=queued)

    def record_batch(self, requests: Iterable[TracedRequest], batch: Batch) -> None:
        """The spans of a batch; see batches.record_batch. Call it only if some request has a traceparent."""
        record_batch(self.spans, list(requests), batch)


@contextmanager
def start(service: str, instance: str, settings: ServiceSettings, tls: Tls | None = None) -> Iterator[Telemetry]:
    """Telemetry and logging until left; then what is not sent yet gets two seconds.

    Args:
        service: "gateway", "worker", …: the log lines' and, as headrace-SERVICE, the traces' service name.
        instance: which of them.
        tls: certificates, for the Prometheus endpoint and for a collector at `https://`.

    Raises:
        OSError: the Prometheus endpoint cannot be bound.
        InvalidArgument: a setting is wrong.
    """
    resource = Resource.create(
        {
            "service.name": f"headrace-{service}",
            "service.namespace": "headrace",
            "service.instance.id": instance,
            "service.version": package_version("headrace"),
        }
    )
    ledger, ids = Ledger(), ReservedIds()
    view = LedgerView(ledger, time.time_ns())
    with ExitStack() as stack:
        stack.enter_context(logging_to_stderr(service, instance, settings.log_level))
        readers: list[MetricReader] = []
        address = ""
        if settings.metrics:
            registry = CollectorRegistry()
            readers.append(LedgerPrometheusReader(view, registry))
            address = stack.enter_context(metrics_endpoint(settings.metrics, registry, tls))
        collector = Collector(settings.otlp, tls, FLUSH_SECONDS) if settings.otlp else None
        if collector is not None:
            readers.append(LedgerPeriodicReader(view, collector.metrics(), METRICS_EVERY_MS, FLUSH_SECONDS * 1000))
        meters = MeterProvider(readers, resource, shutdown_on_exit=False)
        flushes: list[Callable[[], object]] = [lambda: meters.shutdown(FLUSH_SECONDS * 1000)]
        stack.callback(_flush, flushes)
        meter = meters.get_meter(SCOPE)
        _process_metrics(meter)
        spans = None
        if collector is not None:
            tracers = _tracers(collector.spans(), resource, ids)
            flushes.append(tracers.shutdown)
            spans = SpanWriter(tracers.get_tracer(SCOPE), ids)
        sampler = RequestSampler(spans, settings.traces_per_second)
        yield Telemetry(ledger, meter, spans, sampler, address)


def _tracers(exporter: SpanExporter, resource: Resource, ids: ReservedIds) -> TracerProvider:
    """Spans go by `exporter`. Sampling is decided before a span is made, so the SDK takes them all."""
    provider = TracerProvider(ALWAYS_ON, resource, shutdown_on_exit=False, id_generator=ids)
    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=SPANS_EVERY_MS))
    return provider


def _flush(flushes: Iterable[Callable[[], object]]) -> None:
    """Runs all for two seconds at most, side by side: a collector that is away must not hold up the exit."""
    threads = [threading.Thread(target=flush, name="telemetry flush", daemon=True) for flush in flushes]
    deadline = time.monotonic() + FLUSH_SECONDS
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))


def _process_metrics(meter: Meter) -> None:
    """The process's own memory and time, by OpenTelemetry's names."""
    page = os.sysconf("SC_PAGE_SIZE")

    def memory(options: CallbackOptions) -> Iterable[Observation]:
        yield Observation(int(Path("/proc/self/statm").read_text().split()[1]) * page)

    def cpu(options: CallbackOptions) -> Iterable[Observation]:
        usage = rusage.getrusage(rusage.RUSAGE_SELF)
        yield Observation(usage.ru_utime, {"cpu.mode": "user"})
        yield Observation(usage.ru_stime, {"cpu.mode": "system"})

    meter.create_observable_up_down_counter("process.memory.usage", [memory], "By", "Resident memory")
    meter.create_observable_counter("process.cpu.time", [cpu], "s", "Processor time used")
