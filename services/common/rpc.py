"""Plain grpc.aio servers and channels: health, reflection, errors and message limits in one place."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc import aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from services.common.errors import HeadraceError, InvalidArgument, error_of, status_of

# Frames of coalesced work and pieces of files; clients' own limits are the gateway's business.
MAX_MESSAGE_BYTES = 64 * 1024 * 1024
_OPTIONS = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.so_reuseport", 0),
    # Peers ping idle streams every 20 s to notice a silent partition; by default servers punish that.
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
]
# Called with a method's path, the caller's metadata and the name in the request, if any; raises what speaks against it.
Check = Callable[[str, Mapping[str, str | bytes], str], None]
_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


class ErrorInterceptor(aio.ServerInterceptor):
    """Turns HeadraceErrors raised by servicers, and messages that cannot be read, into their gRPC statuses.

    Args:
        check: asked before a servicer is.
    """

    def __init__(self, check: Check | None = None) -> None:
        self._check = check

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        details: grpc.HandlerCallDetails,
    ) -> Any:
        """Wraps the handler that `continuation` finds."""
        handler = await continuation(details)
        if handler is None:
            return None
        parse = _parser(handler.request_deserializer)
        if handler.request_streaming:  # what the iterator of requests raises goes through the servicer
            handler, parse = handler._replace(request_deserializer=parse), _as_it_is
        else:  # grpc would end the call as UNKNOWN before anybody is asked
            handler = handler._replace(request_deserializer=None)
        name = f"{'stream' if handler.request_streaming else 'unary'}_"
        name += "stream" if handler.response_streaming else "unary"
        translate = _translate_stream if handler.response_streaming else _translate_unary
        return handler._replace(**{name: translate(getattr(handler, name), self._entrance(details.method, parse))})

    def _entrance(self, method: str, parse: Callable[[Any], Any]) -> "Entrance":
        check = self._check

        def entrance(request: Any, context: Any) -> Any:
            request = parse(request)
            if check is not None:
                check(method, dict(context.invocation_metadata() or ()), getattr(request, "name", ""))
            return request

        return entrance


# What came, and the call's context → what the servicer is given.
Entrance = Callable[[Any, Any], Any]


def _parser(deserializer: Callable[[bytes], Any] | None) -> Callable[[bytes], Any]:
    def parse(body: bytes) -> Any:
        try:
            return deserializer(body) if deserializer else body
        except DecodeError as error:
            raise InvalidArgument("the message is not what this method takes; check the client's stubs") from error

    return parse


def _as_it_is(requests: Any) -> Any:
    return requests


def _translate_unary(behaviour: Any, enter: Entrance) -> Any:
    async def translated(request: Any, context: Any) -> Any:
        try:
            return await behaviour(enter(request, context), context)
        except HeadraceError as error:
            await context.abort(_CODES[status_of(error).grpc], str(error))

    return translated


def _translate_stream(behaviour: Any, enter: Entrance) -> Any:
    async def translated(request: Any, context: Any) -> AsyncIterator[Any]:
        try:
            async for response in behaviour(enter(request, context), context):
                yield response
        except HeadraceError as error:
            await context.abort(_CODES[status_of(error).grpc], str(error))

    return translated


@asynccontextmanager
async def serving(
    address: str,
    services: Iterable[str],
    register: Callable[[aio.Server], None],
    *,
    grace: float = 2.0,
    check: Check | None = None,
) -> AsyncIterator[int]:
    """Serves on `address` ("host:port"; port 0 picks one) and yields the port.

    `services` are the full names that reflection and health report; `register` adds the servicers. On leaving, health
    turns NOT_SERVING and calls in flight get `grace` seconds. `check` is asked before each call but those of other
    services, such as health.

    Raises:
        OSError: the address cannot be bound.
    """
    server = aio.server(interceptors=[ErrorInterceptor(check)], options=_OPTIONS)
    register(server)
    state = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(state, server)
    names = list(services)
    reflection.enable_server_reflection([*names, health.SERVICE_NAME, reflection.SERVICE_NAME], server)
    try:
        port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise OSError(f"cannot listen on {address}: {error}") from error
    await server.start()
    for name in ("", *names):
        await state.set(name, health_pb2.HealthCheckResponse.SERVING)
    try:
        yield port
    finally:
        await state.enter_graceful_shutdown()
        await server.stop(grace)


def channel(address: str) -> aio.Channel:
    """A channel to another Headrace process."""
    options = [
        *_OPTIONS,
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1000),
        ("grpc.keepalive_time_ms", 20_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.use_local_subchannel_pool", 1),
    ]
    return aio.insecure_channel(address, options=options)


def from_rpc_error(error: grpc.RpcError) -> HeadraceError:
    """The HeadraceError that a failed call to another Headrace process stands for."""
    code, details = getattr(error, "code", None), getattr(error, "details", None)
    if not callable(code) or not callable(details):
        return error_of(2, str(error))
    return error_of(code().value[0], details() or str(error))
