"""What a single replica says of itself, to `headrace status` and its console: a gateway's picture without what only a
cluster has."""

import secrets
from importlib.metadata import version as package_version
from typing import Any

from headrace.v1.gateway_pb2 import GetStatusRequest, GetStatusResponse
from services.gateway.backend import Backend
from services.gateway.calls import Call, MethodTable
from services.gateway.console.live import WINDOW_SECONDS
from services.gateway.console.plain import plain
from services.gateway.observation import Observer
from services.gateway.protocol.service import typed
from services.gateway.routes import Routes
from services.gateway.stats import WINDOW_SECONDS as LONGEST
from services.gateway.status import SERVICE, model_status
from services.single.finding import Found


class ReplicaPicture:
    """Taken by `get_status` and `look`.

    Args:
        front: "envoy" or "grpc".
    """

    def __init__(self, found: Found, front: str, *, routes: Routes, backend: Backend, observer: Observer) -> None:
        # Counters of a process that started anew must not be compared with those of the one before.
        self._id = secrets.token_hex(8)
        self._front = front
        self._routes = routes
        self._backend = backend
        self._observer = observer
        self._members = [
            {"name": each.version.name, "version": str(each.version.version), "runtime": each.version.spec.runtime}
            for each in found.members
        ]

    def methods(self) -> MethodTable:
        """Full method path → handler."""
        return {f"/{SERVICE}/GetStatus": typed(GetStatusRequest, self.get_status)}

    async def get_status(self, call: Call, request: GetStatusRequest) -> GetStatusResponse:
        """The model, or an ensemble and nothing of its steps; what only a cluster has is left out."""
        window = min(request.window_seconds, LONGEST) or LONGEST
        status = GetStatusResponse(
            gateway_id=self._id, version=package_version("headrace"), front=self._front, single_replica=True
        )
        for route in self._routes:
            model = model_status(route, self._observer, window)
            model.in_flight = self._observer.in_flight(route)
            status.models.append(model)
        return status

    async def look(self) -> dict[str, Any]:
        """As a gateway's. `replica` says whether its model is in memory, and of an ensemble which models it is of."""
        request = GetStatusRequest(window_seconds=WINDOW_SECONDS)
        status = await self.get_status(Call(f"/{SERVICE}/GetStatus", {}), request)
        replica = {"ready": self._backend.ready(), "members": self._members}
        return {"status": plain(status), "autoscaler": None, "jobs": None, "replica": replica}
