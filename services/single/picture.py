"""What a single replica's console shows: the gateway's picture without what only a cluster has."""

import secrets
from importlib.metadata import version as package_version
from typing import Any

from headrace.v1.gateway_pb2 import GetStatusResponse
from services.gateway.backend import Backend
from services.gateway.console.live import WINDOW_SECONDS
from services.gateway.console.plain import plain
from services.gateway.observation import Observer
from services.gateway.routes import Routes
from services.gateway.status import model_status
from services.single.finding import Found


class ReplicaPicture:
    """Taken by `look`.

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

    async def look(self) -> dict[str, Any]:
        """As a gateway's. `replica` says whether its model is in memory, and of an ensemble which models it is of."""
        models = []
        for route in self._routes:
            model = model_status(route, self._observer, WINDOW_SECONDS)
            model.in_flight = self._observer.in_flight(route)
            models.append(model)
        status = GetStatusResponse(
            gateway_id=self._id, version=package_version("headrace"), front=self._front, models=models
        )
        replica = {"ready": self._backend.ready(), "members": self._members}
        return {"status": plain(status), "autoscaler": None, "jobs": None, "replica": replica}
