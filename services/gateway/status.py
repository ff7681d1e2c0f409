"""GatewayService: what this gateway sees, for `headrace status`."""

import asyncio
import time
from collections.abc import Callable
from importlib.metadata import version as package_version

import grpc
from grpc import aio

from headrace.v1.fleet_pb2 import WatchFleetRequest, WatchFleetResponse
from headrace.v1.fleet_pb2_grpc import FleetServiceStub
from headrace.v1.gateway_pb2 import GetStatusRequest, GetStatusResponse, ModelStatus, RolloutStatus
from headrace.v1.rollout_pb2 import Rollout
from services.common.errors import Unavailable
from services.gateway.calls import Call, MethodTable
from services.gateway.dispatch.queue_backend import QueueBackend
from services.gateway.observation import Observer
from services.gateway.protocol.service import typed
from services.gateway.routes import Route, Routes
from services.gateway.shadows import Shadows
from services.gateway.stats import WINDOW_SECONDS

SERVICE = "headrace.v1.GatewayService"
FLEET_SECONDS = 1.0


class StatusService:
    """Answers GetStatus."""

    def __init__(
        self,
        gateway_id: str,
        front: str,
        *,
        routes: Routes,
        backend: QueueBackend,
        observer: Observer,
        shadows: Shadows,
        registry: aio.Channel,
        registry_connected: Callable[[], bool],
    ) -> None:
        self._gateway_id = gateway_id
        self._front = front
        self._routes = routes
        self._backend = backend
        self._observer = observer
        self._shadows = shadows
        self._fleet = FleetServiceStub(registry)
        self._registry_connected = registry_connected

    def methods(self) -> MethodTable:
        """Full method path → handler."""
        return {f"/{SERVICE}/GetStatus": typed(GetStatusRequest, self.get_status)}

    async def get_status(self, call: Call, request: GetStatusRequest) -> GetStatusResponse:
        """Models, queues and workers as seen from here; parts that cannot be reached are left out."""
        window = min(request.window_seconds, WINDOW_SECONDS) or WINDOW_SECONDS
        models = await asyncio.gather(*(self._model(route, window) for route in self._routes))
        fleet = await self._seen()
        return GetStatusResponse(
            gateway_id=self._gateway_id,
            version=package_version("headrace"),
            front=self._front,
            registry_connected=self._registry_connected(),
            broker_connected=self._backend.ready(),
            models=models,
            workers=[seen.worker for seen in fleet.workers],
            rollouts=[self._rollout(name, rollout) for name, rollout in self._routes.rollouts()],
            gateways=[seen.gateway for seen in fleet.gateways],
            backlogs=fleet.backlogs,
        )

    def _rollout(self, name: str, rollout: Rollout) -> RolloutStatus:
        trial = next((route for route in self._routes.versions(name) if route.version == rollout.candidate), None)
        shadow = self._shadows.status(trial) if trial is not None else None
        return RolloutStatus(name=name, rollout=rollout, shadow=shadow)

    async def _seen(self) -> WatchFleetResponse:
        """The first message of a watch: it comes at once and has everything."""
        watch = self._fleet.WatchFleet(WatchFleetRequest(), timeout=FLEET_SECONDS)
        try:
            async for seen in watch:
                return seen
        except grpc.RpcError:
            pass
        finally:
            watch.cancel()
        return WatchFleetResponse()

    async def _model(self, route: Route, window: float) -> ModelStatus:
        status = model_status(route, self._observer, window)
        status.in_flight = self._backend.in_flight(route)
        status.aliases.extend(self._routes.aliases(route))
        try:
            depth = await self._backend.depth(route)
        except Unavailable:
            return status
        status.queued, status.consumers = depth.ready, depth.consumers
        return status


def model_status(route: Route, observer: Observer, window: float) -> ModelStatus:
    """What callers of this process got of a version; rates and latencies are those of the last `window` seconds."""
    stats = observer.stats(route)
    recent = stats.recent(time.monotonic(), window)
    return ModelStatus(
        name=route.name,
        version=route.version,
        answered=stats.success.count,
        failed=stats.failure.count,
        requests_per_second=recent.rate,
        p50_ms=recent.p50_ms,
        p99_ms=recent.p99_ms,
        batch_sizes=stats.batch_sizes(),
        runtime=route.spec_version.spec.runtime,
        language_model=route.text,
    )
