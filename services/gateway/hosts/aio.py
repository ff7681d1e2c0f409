"""The grpc.aio host: the handler table on grpc's own server, HTTP on uvicorn. Runs wherever Python does."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Generator
from contextlib import contextmanager
from typing import Any

import grpc
import uvicorn
from grpc import aio

from services.common.errors import FailedPrecondition, HeadraceError, Internal, status_of
from services.common.rpc import bind
from services.common.tls import Tls, latest_context
from services.gateway.application import Application, AsgiApp
from services.gateway.calls import Call, MethodTable, Stream, Unary
from services.gateway.hosts.details import add_details
from services.gateway.hosts.framing import plain_value, shown
from services.gateway.hosts.serving import Gate, gated, with_standard_services

log = logging.getLogger(__name__)

WINDOW_BYTES = 8 * 1024 * 1024
_CODES = {code.value[0]: code for code in grpc.StatusCode}


class TableHandler(grpc.GenericRpcHandler):
    """Finds handlers in the table; bytes in, bytes out."""

    def __init__(self, methods: MethodTable, gate: Gate) -> None:
        self._methods = methods
        self._gate = gate

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        """The handler of a method, None if it is not in the table (grpc answers UNIMPLEMENTED)."""
        method = self._methods.get(details.method)
        if isinstance(method, Unary):
            return grpc.unary_unary_rpc_method_handler(self._unary(details.method, method))
        if isinstance(method, Stream):
            return grpc.stream_stream_rpc_method_handler(self._stream(details.method, method))
        return None

    def _unary(self, path: str, method: Unary) -> Any:
        async def behaviour(body: bytes, context: Any) -> bytes:
            call, counted = _call(path, context), False
            try:
                counted = self._gate.enter(path)
                response = await method.handler(call, body)
                context.set_trailing_metadata(_trailing(call))
                return response
            except Exception as error:
                await _abort(context, call, error)
                raise
            finally:
                if counted:
                    self._gate.leave()

        return behaviour

    def _stream(self, path: str, method: Stream) -> Any:
        async def behaviour(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
            call, counted = _call(path, context), False
            try:
                counted = self._gate.enter(path)
                responses = method.handler(call, requests)
                try:
                    async for response in responses:
                        yield response
                finally:
                    aclose = getattr(responses, "aclose", None)
                    if aclose is not None:
                        await aclose()
                context.set_trailing_metadata(_trailing(call))
            except Exception as error:
                await _abort(context, call, error)
                raise
            finally:
                if counted:
                    self._gate.leave()

        return behaviour


def _call(path: str, context: Any) -> Call:
    remaining = context.time_remaining()
    deadline = None
    if remaining is not None and remaining < 1e8:  # grpc has a huge number where there is none
        deadline = asyncio.get_running_loop().time() + remaining
    return Call(path, dict(context.invocation_metadata() or ()), deadline, context.peer())


async def _abort(context: Any, call: Call, error: Exception) -> None:
    """Ends the call with the error's status."""
    if isinstance(error, aio.AbortError):
        return
    if not isinstance(error, HeadraceError):
        log.error("%s failed", call.method, exc_info=error)
        error = Internal("internal error; the server's log has the details")
    add_details(call, error)
    text = shown(str(error)).encode(errors="replace").decode()
    await context.abort(_CODES[status_of(error).grpc], text, _trailing(call))


def _trailing(call: Call) -> tuple[tuple[str, str | bytes], ...]:
    items = call.trailing.items()
    return tuple((key, value if isinstance(value, bytes) else plain_value(value)) for key, value in items)


class AioHost:
    """Serves an application on two ports.

    Args:
        max_request_bytes: most bytes of one message.
        tls: for both ports.
    """

    def __init__(self, *, max_request_bytes: int, tls: Tls | None = None) -> None:
        self._tls = tls
        options = [
            ("grpc.max_receive_message_length", max_request_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),
            # A fixed window for each stream: left to itself, grpc lets one that nobody reads grow to tens of megabytes.
            ("grpc.http2.bdp_probe", 0),
            ("grpc.http2.lookahead_bytes", WINDOW_BYTES),
            ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
            ("grpc.keepalive_permit_without_calls", 1),
        ]
        self._server = aio.server(options=options)

    def bind(self, listen: str) -> int:
        """Takes the gRPC port and returns it. Raises FailedPrecondition."""
        try:
            return bind(self._server, listen, self._tls)
        except RuntimeError as error:
            message = f"cannot listen on {listen}; choose another address or port, or stop what has it"
            raise FailedPrecondition(message) from error

    async def run(
        self,
        application: Application,
        gate: Gate,
        http_socket: socket.socket,
        ready: asyncio.Event,
        stop: asyncio.Event,
    ) -> None:
        """Serves from now until `stop`; sets `ready` once both ports answer."""
        self._server.add_generic_rpc_handlers((TableHandler(with_standard_services(application, gate), gate),))
        await self._server.start()
        http_socket.listen(1024)
        http = _HttpServer(gated(application.http, gate), self._tls)
        async with asyncio.TaskGroup() as group:
            group.create_task(http.serve([http_socket]), name="http")
            ready.set()
            await stop.wait()
            http.should_exit = True
        await self._server.stop(1.0)


class _HttpServer(uvicorn.Server):
    """uvicorn without its signal handlers: signals are the process's business."""

    def __init__(self, app: AsgiApp, tls: Tls | None) -> None:
        config = uvicorn.Config(app, log_level="warning", lifespan="off", timeout_graceful_shutdown=1)
        if tls is not None and tls.serves:
            config.ssl_context_factory = lambda *of_uvicorn: latest_context(tls)
        super().__init__(config)

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield
