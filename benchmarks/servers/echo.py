"""A bare grpc.aio server that answers with the request's bytes: the ceiling of a Python gRPC server.

python echo.py PORT
"""

import sys
from typing import Any

import grpc
import uvloop
from grpc import aio


async def echo(request: bytes, context: Any) -> bytes:
    """The request."""
    return request


async def main(port: int) -> None:
    """Serves until killed."""
    server = aio.server()
    handler: Any = grpc.unary_unary_rpc_method_handler(echo)  # without serializers: bytes in, bytes out
    methods = {"ModelInfer": handler}
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("inference.GRPCInferenceService", methods),),
    )
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


uvloop.run(main(int(sys.argv[1])))
