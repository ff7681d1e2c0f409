"""What is sent by OTLP/gRPC: the SDK's exporters, made anew once the process has new certificates."""

import logging
import os
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import grpc
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult, MetricsData
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from services.common.tls import Tls

log = logging.getLogger(__name__)


class Collector:
    """Where spans and metrics go, and by which certificates.

    Those of OpenTelemetry's own variables (OTEL_EXPORTER_OTLP_CERTIFICATE and the like), where one is set: the SDK
    reads them at the start. Else the process's own, as towards its other peers: a collector must be of issuers in
    HEADRACE_TLS_CA and is shown HEADRACE_TLS_CERT. Else the system's issuers.

    Args:
        endpoint: `http://host:port`, or `https://` for TLS.
        timeout: seconds for one export.
    """

    def __init__(self, endpoint: str, tls: Tls | None, timeout: float) -> None:
        by_variables = any(
            name.startswith("OTEL_EXPORTER_OTLP_") and name.endswith("CERTIFICATE") for name in os.environ
        )
        self._tls = tls if tls is not None and tls.dials and not by_variables else None
        self._endpoint = endpoint
        self._timeout = timeout

    def spans(self) -> SpanExporter:
        """For the SDK's processor."""
        return _Spans(_Latest(lambda: OTLPSpanExporter(**self._said()), self._revision, self._advice()))

    def metrics(self) -> MetricExporter:
        """For the SDK's reader."""
        return _Metrics(_Latest(lambda: OTLPMetricExporter(**self._said()), self._revision, self._advice()))

    def _revision(self) -> int:
        return self._tls.revision if self._tls else 0

    def _said(self) -> dict[str, Any]:
        credentials = None
        if self._tls is not None:
            now = self._tls.now
            credentials = grpc.ssl_channel_credentials(now.ca, now.key or None, now.chain or None)
        return {"endpoint": self._endpoint, "credentials": credentials, "timeout": self._timeout}

    def _advice(self) -> str:
        """What to look at where nothing gets through; the SDK has said why in the line before."""
        if not self._endpoint.startswith("https:"):
            return ""
        issuers, shown = (
            ("HEADRACE_TLS_CA", "HEADRACE_TLS_CERT")
            if self._tls
            else ("OTEL_EXPORTER_OTLP_CERTIFICATE (or HEADRACE_TLS_CA)", "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE")
        )
        return (
            f"nothing gets through to {self._endpoint} (HEADRACE_OTLP), for the reason above; if that is a certificate"
            f" or a handshake: the collector's must be by issuers in {issuers} and for its host, and where it asks for"
            f" one it is shown {shown}"
        )


Exporter = TypeVar("Exporter", bound=SpanExporter | MetricExporter)


class _Latest(Generic[Exporter]):
    """An exporter by the certificates of now. Only the thread that exports comes here."""

    def __init__(self, make: Callable[[], Exporter], revision: Callable[[], int], advice: str) -> None:
        self._make = make
        self._revision = revision
        self._advice = advice
        self._known = revision()
        self._told = False
        self.made = make()

    def get(self) -> Exporter:
        """The one to export by."""
        revision = self._revision()
        if revision != self._known:
            old, self.made, self._known = self.made, self._make(), revision
            old.shutdown()
        return self.made

    def tell(self, *, failed: bool) -> None:
        """Says what to look at, once for each time that it stops working."""
        if failed and not self._told and self._advice:
            log.warning("%s", self._advice)
        self._told = failed


class _Spans(SpanExporter):
    def __init__(self, latest: _Latest[OTLPSpanExporter]) -> None:
        self._latest = latest

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._latest.get().export(spans)
        self._latest.tell(failed=result is not SpanExportResult.SUCCESS)
        return result

    def shutdown(self) -> None:
        self._latest.made.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return bool(self._latest.made.force_flush(timeout_millis))


class _Metrics(MetricExporter):
    def __init__(self, latest: _Latest[OTLPMetricExporter]) -> None:
        # What OpenTelemetry's variables say of temporality; the reader asks for it by these names.
        super().__init__(latest.made._preferred_temporality, latest.made._preferred_aggregation)
        self._latest = latest

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> MetricExportResult:
        result = self._latest.get().export(metrics_data, timeout_millis, **kwargs)
        self._latest.tell(failed=result is not MetricExportResult.SUCCESS)
        return result

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        self._latest.made.shutdown(timeout_millis, **kwargs)

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return bool(self._latest.made.force_flush(timeout_millis))
