"""The ledger as OpenTelemetry metrics: added to what the SDK collects, on its way to Prometheus or OTLP."""

import time
from typing import Any

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    HistogramDataPoint,
    Metric,
    MetricExporter,
    MetricsData,
    NumberDataPoint,
    PeriodicExportingMetricReader,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.metrics.export import Histogram as HistogramData
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from prometheus_client import CollectorRegistry

from services.common.telemetry.ledger import Counter, Family, Histogram, Ledger

LEDGER_SCOPE = "headrace.ledger"


class LedgerView:
    """Reads a ledger as metrics that have been cumulating since `start_ns`."""

    def __init__(self, ledger: Ledger, start_ns: int) -> None:
        self._ledger = ledger
        self._start_ns = start_ns

    def merged(self, collected: MetricsData) -> MetricsData:
        """What the SDK collected, and the ledger under the same resource."""
        now_ns = time.time_ns()
        metrics = (self._metric(family, now_ns) for family in self._ledger.families())
        mine = [metric for metric in metrics if metric.data.data_points]
        first, *rest = collected.resource_metrics
        # The OTLP encoder keeps the last of two entries of equal scope: ours must have a name that no meter has.
        scopes = [*first.scope_metrics, ScopeMetrics(InstrumentationScope(LEDGER_SCOPE), mine, "")]
        return MetricsData([ResourceMetrics(first.resource, scopes, first.schema_url), *rest])

    def _metric(self, family: Family, now_ns: int) -> Metric:
        numbers: list[NumberDataPoint] = []
        histograms: list[HistogramDataPoint] = []
        monotonic = False
        for key, series in list(family.series.items()):
            attributes = dict(key)
            if isinstance(series, Histogram):
                if not any(series.counts):
                    continue
                counts = list(series.counts)
                histograms.append(
                    HistogramDataPoint(
                        attributes,
                        self._start_ns,
                        now_ns,
                        sum(counts),
                        series.total,
                        counts,
                        series.bounds,
                        min=series.lowest,
                        max=series.highest,
                    )
                )
            else:
                monotonic = isinstance(series, Counter)
                numbers.append(NumberDataPoint(attributes, self._start_ns, now_ns, series.value))
        data: Sum | HistogramData = (
            HistogramData(histograms, AggregationTemporality.CUMULATIVE)
            if histograms
            else Sum(numbers, AggregationTemporality.CUMULATIVE, monotonic)
        )
        return Metric(family.name, family.description, family.unit, data)


class LedgerPrometheusReader(PrometheusMetricReader):
    """Serves the SDK's metrics and the ledger to a Prometheus registry."""

    def __init__(self, view: LedgerView, registry: CollectorRegistry) -> None:
        self._view = view
        super().__init__(scope_info_enabled=False, registry=registry)

    def _receive_metrics(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> None:
        super()._receive_metrics(self._view.merged(metrics_data), timeout_millis, **kwargs)


class LedgerPeriodicReader(PeriodicExportingMetricReader):
    """Sends the SDK's metrics and the ledger to an exporter."""

    def __init__(
        self, view: LedgerView, exporter: MetricExporter, interval_millis: float, timeout_millis: float
    ) -> None:
        self._view = view
        super().__init__(exporter, interval_millis, timeout_millis)

    def _receive_metrics(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> None:
        super()._receive_metrics(self._view.merged(metrics_data), timeout_millis, **kwargs)
