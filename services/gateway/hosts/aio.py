"""The grpc.aio host: the handler table on grpc's own server, HTTP on uvicorn. Runs wherever Python does."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import grpc
import uvicorn
from grpc import aio

from services.common.errors import HeadraceError, status_of
from services.gateway.application import Application, AsgiApp
from services.gateway.calls import Call, MethodTable, Stream, Unary
from services.gateway.hosts.serving import Gate, with_standard_services

log = logging.getLogger(__name__)

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
                context.set_trailing_metadata(tuple(call.trailing.items()))
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
                async for response in method.handler(call, requests):
                    yield response
                context.set_trailing_metadata(tuple(call.trailing.items()))
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
    trailing = tuple(call.trailing.items())
    if isinstance(error, HeadraceError):
        await context.abort(_CODES[status_of(error).grpc], str(error), trailing)
    log.exception("%s failed", call.method, exc_info=error)
    await context.abort(grpc.StatusCode.INTERNAL, "internal error; the server's log has the details", trailing)


class AioHost:
    """Serves an application on two ports."""

    def __init__(self, application: Application, *, max_request_bytes: int) -> None:
        self.gate = Gate(application)
        options = [
            ("grpc.max_receive_message_length", max_request_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),
            ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
            ("grpc.keepalive_permit_without_calls", 1),
        ]
        self._server = aio.server(options=options)
        handler = TableHandler(with_standard_services(application, self.gate), self.gate)
        self._server.add_generic_rpc_handlers((handler,))
        self._http = application.http

    async def run(self, grpc_listen: str, http_listen: str, ready: asyncio.Event, stop: asyncio.Event) -> None:
        """Serves from now until `stop`; `ready` is set once both ports answer. The ports were bound by the caller."""
        self._server.add_insecure_port(grpc_listen)
        await self._server.start()
        http = _http_server(self._http, http_listen)
        async with asyncio.TaskGroup() as group:
            group.create_task(http.serve(), name="http")
            ready.set()
            await stop.wait()
            http.should_exit = True

    async def close(self) -> None:
        """Cuts what is left."""
        await self._server.stop(1.0)


def _http_server(app: AsgiApp, listen: str) -> uvicorn.Server:
    host, _, port = listen.rpartition(":")
    config = uvicorn.Config(app, host=host, port=int(port), log_level="warning", lifespan="off")
    server = uvicorn.Server(config)
    # Signals are the process's business, not uvicorn's.
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    return server
