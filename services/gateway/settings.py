"""What a gateway is told by its environment."""

import socket
from typing import Literal

from pydantic import Field

from services.common.settings import ServiceSettings


class GatewaySettings(ServiceSettings):
    """Settings of a gateway, HEADRACE_* in the environment.

    Attributes:
        listen: host:port for gRPC, and for HTTP too where Envoy is the front.
        http_listen: host:port for HTTP where grpc.aio is the front.
        front: which host serves; "auto" takes Envoy where a shared libpython is found.
        advertise: host:port at which workers reach this gateway's reply channel; empty: `listen`, or where that takes
            every interface, the address that this host's name has.
        inline_bytes: larger requests stay here and the worker fetches them (claim check). RabbitMQ refuses messages
            over 16 MiB.
        max_request_bytes: larger requests are refused.
        autoscaler: host:port of the autoscaler, for the console; empty: there is none.
        jobs: host:port of the job service, for /v1/files and /v1/batches; empty: they are not offered.
        broker_token: with this set the embedded broker lives in this gateway, instead of the one at `broker`; workers
            attach to it at `embedded://TOKEN@host:port` of this gateway. For stacks of one gateway.
        drain_seconds: how long SIGTERM waits for calls in flight.
    """

    listen: str = "127.0.0.1:8001"
    http_listen: str = "127.0.0.1:8000"
    front: Literal["auto", "envoy", "grpc"] = "auto"
    advertise: str = ""
    inline_bytes: int = Field(default=1024 * 1024, ge=1)
    max_request_bytes: int = Field(default=64 * 1024 * 1024, ge=1)
    autoscaler: str = ""
    jobs: str = ""
    broker_token: str = ""
    drain_seconds: float = Field(default=30.0, ge=0)

    def advertised(self) -> str:
        """host:port for the workers."""
        host, _, port = self.listen.rpartition(":")
        if self.advertise or host not in {"0.0.0.0", "[::]", "::", ""}:
            return self.advertise or self.listen
        return f"{socket.gethostbyname(socket.gethostname())}:{port}"
