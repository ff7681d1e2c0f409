"""Health check of a container: `python -m services.common.probe HOST:PORT` exits with 0 while it serves.

By TLS where the service that it stands beside has a HEADRACE_TLS_CA.
"""

import sys
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from headrace.client.tls import open_channel

SECONDS = 3.0


def serves(address: str) -> bool:
    """Whether the standard health service at `address` says SERVING within three seconds."""
    with open_channel(address, None) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        try:
            answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=SECONDS)
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


if __name__ == "__main__":
    sys.exit(0 if serves(sys.argv[1]) else 1)
