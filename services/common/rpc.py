"""Plain grpc.aio servers and channels: health, reflection, errors and message limits in one place."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc import aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from services.common.errors import HeadraceError, InvalidArgument, error_of, status_of
from services.common.following import FollowingChannel
from services.common.tls import Identity, Tls

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
# Called with a method's path, the caller's metadata and the request (a stream's is its iterator); raises what speaks
# against it.
Check = Callable[[str, Mapping[str, str | bytes], Any], None]
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
                check(method, dict(context.invocation_metadata() or ()), request)
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
            responses = behaviour(enter(request, context), context)
            if isinstance(responses, Awaitable):  # it writes to the context itself, as grpc's health service does
                await responses
                return
            async for response in responses:
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
    tls: Tls | None = None,
    ready: asyncio.Event | None = None,
) -> AsyncIterator[int]:
    """Serves on `address` ("host:port"; port 0 picks one) and yields the port.

    `services` are the full names that reflection and health report; `register` adds the servicers. Health says SERVING
    once `ready` is set, at once without one; on leaving it turns NOT_SERVING and calls in flight get `grace` seconds.
    `check` is asked before each call but those of other services, such as health.

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
        port = bind(server, address, tls)
    except RuntimeError as error:
        raise OSError(f"cannot listen on {address}: {error}") from error

    async def report_health() -> None:
        await state.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
        if ready is not None:
            await ready.wait()
        for name in ("", *names):
            await state.set(name, health_pb2.HealthCheckResponse.SERVING)

    await server.start()
    reporting = asyncio.create_task(report_health(), name="health")
    if ready is None:
        await reporting
    try:
        yield port
    finally:
        reporting.cancel()
        await state.enter_graceful_shutdown()
        await server.stop(grace)


def bind(server: aio.Server, address: str, tls: Tls | None) -> int:
    """Takes a port, by TLS where there are certificates to show, and returns it. Raises RuntimeError."""
    if tls is None or not tls.serves:
        return server.add_insecure_port(address)
    credentials = grpc.dynamic_ssl_server_credentials(
        _configuration(tls.now),
        _news(tls),  # type: ignore[arg-type]  # None is allowed, and says that nothing has changed
        require_client_authentication=bool(tls.now.client_ca),
    )
    return server.add_secure_port(address, credentials)


def _configuration(identity: Identity) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(identity.key, identity.chain)], identity.client_ca or None)


def _news(tls: Tls) -> Callable[[], grpc.ServerCertificateConfiguration | None]:
    """What grpc asks at each handshake, from a thread of its own: None where nothing has changed."""
    known = tls.revision

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        nonlocal known
        if tls.revision == known:
            return None
        known = tls.revision
        return _configuration(tls.now)

    return fetch


def channel(address: str, tls: Tls | None = None) -> aio.Channel:
    """A channel to another Headrace process; by TLS where the issuers of others' certificates are known."""
    options: list[tuple[str, Any]] = [
        *_OPTIONS,
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1000),
        ("grpc.keepalive_time_ms", 20_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.use_local_subchannel_pool", 1),
    ]
    if tls is None or not tls.dials:
        return aio.insecure_channel(address, options=options)
    if tls.name:
        options.append(("grpc.ssl_target_name_override", tls.name))

    def dial() -> aio.Channel:
        now = tls.now
        credentials = grpc.ssl_channel_credentials(now.ca, now.key or None, now.chain or None)
        return aio.secure_channel(address, credentials, options=options)

    return FollowingChannel(dial, lambda: tls.revision)


def from_rpc_error(error: grpc.RpcError) -> HeadraceError:
    """The HeadraceError that a failed call to another Headrace process stands for."""
    code, details = getattr(error, "code", None), getattr(error, "details", None)
    if not callable(code) or not callable(details):
        return error_of(2, str(error))
    return error_of(code().value[0], details() or str(error))
