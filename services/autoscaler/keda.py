"""KEDA's ExternalScaler: clusters that run KEDA use the decisions as they are.

The metric is the number of workers decided on, its target 1 for each replica (AverageValue, KEDA's default), so the
HorizontalPodAutoscaler arrives at the very number. Run with `orchestrator=none`: KEDA acts.
"""

from collections.abc import AsyncIterator
from typing import Any

from headrace.keda.externalscaler_pb2 import (
    GetMetricSpecResponse,
    GetMetricsRequest,
    GetMetricsResponse,
    IsActiveResponse,
    MetricSpec,
    MetricValue,
    ScaledObjectRef,
)
from headrace.keda.externalscaler_pb2_grpc import ExternalScalerServicer
from services.autoscaler.scaling import Scaling
from services.common.errors import InvalidArgument, Unavailable

METRIC = "headrace-workers"


class KedaServer(ExternalScalerServicer):
    """Implements ExternalScaler."""

    def __init__(self, scaling: Scaling) -> None:
        self._scaling = scaling

    async def IsActive(self, request: ScaledObjectRef, context: Any) -> IsActiveResponse:
        """Whether there is to be any worker."""
        return IsActiveResponse(result=self._target() > 0)

    async def StreamIsActive(self, request: ScaledObjectRef, context: Any) -> AsyncIterator[IsActiveResponse]:
        """At once, then at each change: a request wakes the first worker without waiting for KEDA's poll."""
        said: bool | None = None
        async for decided in self._scaling.decisions():
            active = decided.decision.target > 0
            if active is not said:
                yield IsActiveResponse(result=active)
            said = active

    async def GetMetricSpec(self, request: ScaledObjectRef, context: Any) -> GetMetricSpecResponse:
        """One metric, one of it for each replica."""
        return GetMetricSpecResponse(
            metric_specs=[MetricSpec(metric_name=METRIC, target_size=1, target_size_float=1.0)]
        )

    async def GetMetrics(self, request: GetMetricsRequest, context: Any) -> GetMetricsResponse:
        """The number decided on. Raises InvalidArgument, Unavailable."""
        if request.metric_name != METRIC:
            raise InvalidArgument(f"metric '{request.metric_name}': expected '{METRIC}'")
        target = self._target()
        value = MetricValue(metric_name=METRIC, metric_value=target, metric_value_float=float(target))
        return GetMetricsResponse(metric_values=[value])

    def _target(self) -> int:
        if self._scaling.decided is None:
            raise Unavailable("nothing has been decided yet; ask again in a second")
        return self._scaling.decided.decision.target
