"""The Envoy host: an ASGI application that speaks gRPC by hand to the handler table.

pyvoy loads it into Envoy. Two of pyvoy's ways shape it: after the end of a body `receive()` returns at once and empty
instead of waiting for the disconnect, so one slow poller asks for calls that last; and response headers leave with the
first body only, so streams begin with an empty one.
"""

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass

from services.common.errors import Cancelled, DeadlineExceeded, HeadraceError, InvalidArgument, Unimplemented, status_of
from services.gateway.application import ApplicationFactory, Event, Scope
from services.gateway.calls import Call, MethodTable, Stream, Unary
from services.gateway.hosts.control import serve_control
from services.gateway.hosts.framing import (
    ACCEPTED_ENCODINGS,
    Unframer,
    encode_message,
    frame,
    metadata_of,
    parse_timeout,
    trailer,
)
from services.gateway.hosts.serving import Gate, with_standard_services

log = logging.getLogger(__name__)

POLL_SECONDS = 0.25
_HEADERS = [(b"content-type", b"application/grpc"), (b"grpc-accept-encoding", ACCEPTED_ENCODINGS)]
_START: Event = {"type": "http.response.start", "status": 200, "headers": _HEADERS, "trailers": True}
_OK = (b"grpc-status", b"0")

Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]


@dataclass(slots=True, eq=False)
class _Live:
    """A call under way.

    Attributes:
        body_over: the client has sent everything: from here on disconnects must be asked for.
        why: why its task was cancelled, if it was.
    """

    task: asyncio.Task[None]
    receive: Receive
    began: float
    body_over: bool = False
    why: HeadraceError | None = None

    def cancel(self, why: HeadraceError) -> None:
        """Ends the call."""
        if self.why is None:
            self.why = why
            self.task.cancel()


class GrpcAsgiApp:
    """Built when Envoy starts the application's lifespan, in Envoy's event loop.

    Args:
        factory: makes the application.
        max_request_bytes: most bytes of one message.
    """

    def __init__(self, factory: ApplicationFactory, max_request_bytes: Callable[[], int]) -> None:
        self._factory = factory
        self._max_request_bytes = max_request_bytes
        self._limit = 0
        self._methods: MethodTable = {}
        self._live: set[_Live] = set()
        self._gate: Gate
        self._http: Callable[[Scope, Receive, Send], Awaitable[None]]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI's entry point."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        for key, value in headers:
            if key == b"content-type":
                if value.startswith(b"application/grpc"):
                    await self._grpc(scope, headers, receive, send)
                    return
                break
        await self._http(scope, receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        async with AsyncExitStack() as stack:
            try:
                application = await stack.enter_async_context(self._factory())
                self._limit = self._max_request_bytes()
                self._gate = Gate(application)
                self._http = application.http
                self._methods = with_standard_services(application, self._gate)
                tasks = [
                    asyncio.create_task(self._poll(), name="disconnects"),
                    asyncio.create_task(serve_control(self._gate), name="control"),
                ]
            except Exception as error:
                log.exception("the application did not start")
                await send({"type": "lifespan.startup.failed", "message": str(error)})
                # Envoy would serve on without it.
                os.kill(os.getpid(), signal.SIGKILL)
                return
            await send({"type": "lifespan.startup.complete"})
            await receive()
            for task in tasks:
                task.cancel()
        await send({"type": "lifespan.shutdown.complete"})

    async def _grpc(self, scope: Scope, headers: list[tuple[bytes, bytes]], receive: Receive, send: Send) -> None:
        """One call, whatever becomes of it."""
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None
        call = Call(scope["path"], {})
        live = _Live(task, receive, loop.time())
        response = _Response(send, call)
        self._live.add(live)
        timer: asyncio.TimerHandle | None = None
        counted = False
        try:
            call.metadata = metadata_of(headers)
            method = self._method(call.method)
            if timeout := str(call.metadata.get("grpc-timeout", "")):
                call.deadline = loop.time() + parse_timeout(timeout)
                timer = loop.call_at(call.deadline, live.cancel, DeadlineExceeded("the call's deadline passed"))
            counted = self._gate.enter(call.method)
            unframer = Unframer(str(call.metadata.get("grpc-encoding", "")), self._limit)
            if isinstance(method, Unary):
                await response.unary(await method.handler(call, await self._one(live, unframer)))
            else:
                await self._stream(method, call, live, unframer, response)
        except asyncio.CancelledError:
            if live.why is None:
                raise
            with suppress(Exception):  # whoever cancelled is gone, most often
                await response.fail(live.why)
        except HeadraceError as error:
            await response.fail(error)
        except Exception as error:
            if type(error).__name__ != "ClientDisconnectedError":
                log.exception("%s failed", call.method)
                await response.fail(HeadraceError("internal error; the server's log has the details"))
        finally:
            self._live.discard(live)
            if timer is not None:
                timer.cancel()
            if counted:
                self._gate.leave()

    def _method(self, path: str) -> Unary | Stream:
        method = self._methods.get(path)
        if method is None:
            raise Unimplemented(f"no method {path[:200]}")
        return method

    async def _one(self, live: _Live, unframer: Unframer) -> bytes:
        """The single message of a unary call."""
        message: bytes | None = None
        async for found in self._messages(live, unframer):
            if message is not None:
                raise InvalidArgument("a unary call carries one message; another followed")
            message = found
        if message is None:
            raise InvalidArgument("a unary call carries one message; the body was empty")
        return message

    async def _messages(self, live: _Live, unframer: Unframer) -> AsyncIterator[bytes]:
        """Messages as they come in, until the client has sent everything."""
        while not live.body_over:
            event = await live.receive()
            if event["type"] == "http.disconnect":
                live.cancel(Cancelled("the caller left"))
                await asyncio.sleep(0)
                return
            for message in unframer.feed(event.get("body", b"")):
                yield message
            live.body_over = not event.get("more_body", False)
        unframer.end()

    async def _stream(self, method: Stream, call: Call, live: _Live, unframer: Unframer, response: "_Response") -> None:
        await response.start()
        messages = method.handler(call, self._messages(live, unframer))
        try:
            async for message in messages:
                await response.message(message)
        finally:
            aclose = getattr(messages, "aclose", None)
            if aclose is not None:
                await aclose()
        await response.end()

    async def _poll(self) -> None:
        """Asks, for calls that last, whether their caller is still there."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(POLL_SECONDS)
            before = loop.time() - POLL_SECONDS
            for live in [live for live in self._live if live.body_over and live.began < before]:
                with suppress(Exception):
                    event = await live.receive()
                    if event["type"] == "http.disconnect":
                        live.cancel(Cancelled("the caller left"))


class _Response:
    """The answer of one call."""

    __slots__ = ("_call", "_send", "_started")

    def __init__(self, send: Send, call: Call) -> None:
        self._send = send
        self._call = call
        self._started = False

    async def unary(self, message: bytes) -> None:
        """The whole answer at once."""
        await self._send(_START)
        self._started = True
        await self._send({"type": "http.response.body", "body": frame(message)})
        await self._send({"type": "http.response.trailers", "headers": [_OK, *self._trailing()]})

    async def start(self) -> None:
        """Headers now, without waiting for the first message."""
        await self._send(_START)
        self._started = True
        await self._send({"type": "http.response.body", "body": b"", "more_body": True})

    async def message(self, message: bytes) -> None:
        """One message of a stream."""
        await self._send({"type": "http.response.body", "body": frame(message), "more_body": True})

    async def end(self) -> None:
        """The stream is over."""
        await self._finish([_OK, *self._trailing()])

    async def fail(self, error: HeadraceError) -> None:
        """The error's status: in the trailers, or in the headers where nothing has been sent."""
        status = [
            (b"grpc-status", str(status_of(error).grpc).encode()),
            (b"grpc-message", encode_message(str(error))),
            *self._trailing(),
        ]
        if self._started:
            await self._finish(status)
            return
        await self._send({"type": "http.response.start", "status": 200, "headers": [*_HEADERS, *status]})
        await self._send({"type": "http.response.body", "body": b""})

    async def _finish(self, trailers: list[tuple[bytes, bytes]]) -> None:
        await self._send({"type": "http.response.body", "body": b""})
        await self._send({"type": "http.response.trailers", "headers": trailers})

    def _trailing(self) -> list[tuple[bytes, bytes]]:
        return [trailer(key, value) for key, value in self._call.trailing.items()]
