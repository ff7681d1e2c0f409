"""grpc.health.v1 as handlers over bytes, so that both hosts have it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Container

from google.protobuf.message import DecodeError
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from services.common.errors import InvalidArgument, NotFound
from services.gateway.calls import Call, MethodTable, Stream, Unary

SERVICE = "grpc.health.v1.Health"
WATCH_SECONDS = 0.5


class Health:
    """SERVING while `ready()` says so.

    Args:
        services: the names that may be asked for beside "".
    """

    def __init__(self, ready: Callable[[], bool], services: Container[str]) -> None:
        self._ready = ready
        self._services = services

    def methods(self) -> MethodTable:
        """Full method path → handler."""
        return {f"/{SERVICE}/Check": Unary(self.check), f"/{SERVICE}/Watch": Stream(self.watch)}

    async def check(self, call: Call, body: bytes) -> bytes:
        """The state now. Raises NotFound for a service that is not served."""
        name = _parse(body).service
        if name and name not in self._services:
            raise NotFound(f"no service '{name[:128]}'")
        return self._response().SerializeToString()

    async def watch(self, call: Call, requests: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The state now and whenever it changes."""
        name = _parse(await anext(requests, b"")).service
        if name and name not in self._services:
            yield HealthCheckResponse(status=HealthCheckResponse.SERVICE_UNKNOWN).SerializeToString()
            await asyncio.Event().wait()
        last = None
        while True:
            response = self._response()
            if response != last:
                yield response.SerializeToString()
                last = response
            await asyncio.sleep(WATCH_SECONDS)

    def _response(self) -> HealthCheckResponse:
        serving = HealthCheckResponse.SERVING if self._ready() else HealthCheckResponse.NOT_SERVING
        return HealthCheckResponse(status=serving)


def _parse(body: bytes) -> HealthCheckRequest:
    try:
        return HealthCheckRequest.FromString(body)
    except DecodeError as error:
        raise InvalidArgument("the message is not a HealthCheckRequest") from error
