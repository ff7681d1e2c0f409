"""The Envoy host: an ASGI application that speaks gRPC by hand to the handler table.

pyvoy loads it into Envoy. One of pyvoy's ways shapes it: after the end of a body `receive()` returns at once and empty
instead of waiting for the disconnect, so one slow poller asks for all calls that last.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, aclosing, suppress

from services.common.errors import Cancelled, DeadlineExceeded, HeadraceError, Internal, Unimplemented
from services.common.framing import Unframer
from services.common.garbage import freeze_what_is_loaded
from services.gateway.application import ApplicationFactory, Scope
from services.gateway.calls import Call, MethodTable, Stream, Unary
from services.gateway.deadlines import Deadlines
from services.gateway.hosts.control import ControlledProcess
from services.gateway.hosts.framing import HeaderMetadata, is_grpc, parse_timeout
from services.gateway.hosts.serving import Gate, gated, with_standard_services
from services.gateway.hosts.wire import Incoming, Outgoing, Receive, Send, waiting

log = logging.getLogger(__name__)

POLL_SECONDS = 0.25
# What uvloop's clock tells apart: a timer set for less fires before anything was read.
CLOCK_TICK_SECONDS = 0.001


class _Live:
    """A call under way, and the one way to end it early."""

    __slots__ = ("_task", "began", "finished", "incoming", "why")

    def __init__(self, task: "asyncio.Task[None]", began: float) -> None:
        self._task = task
        self.began = began
        self.incoming: Incoming | None = None
        self.why: HeadraceError | None = None  # it was cancelled
        self.finished = False  # its answer is on its way: too late to cancel

    def cancel(self, why: HeadraceError) -> None:
        """Cancels the handler; nothing if the handler is done."""
        if self.why is None and not self.finished:
            self.why = why
            self._task.cancel()

    def late(self) -> None:
        """Its deadline has passed."""
        self.cancel(DeadlineExceeded("the call's deadline passed"))

    def left(self) -> None:
        """The caller has gone."""
        self.cancel(Cancelled("the caller left"))


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
        self._deadlines: Deadlines[_Live] = Deadlines(_Live.late)
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
                if is_grpc(value):
                    await self._grpc(scope, headers, receive, send)
                    return
                break
        await self._http(scope, waiting(receive, POLL_SECONDS), send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        async with AsyncExitStack() as stack:
            process = await stack.enter_async_context(ControlledProcess.connected())
            try:
                application = await stack.enter_async_context(self._factory())
                self._limit = self._max_request_bytes()
                self._gate = Gate(application)
                self._http = gated(application.http, self._gate)
                self._methods = with_standard_services(application, self._gate)
            except Exception as error:
                if not isinstance(error, HeadraceError):
                    log.exception("the application did not start")
                await process.fail(error)
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._poll(), name="disconnects"),
                    group.create_task(process.obey(self._gate), name="control"),
                ]
                freeze_what_is_loaded()
                await send({"type": "lifespan.startup.complete"})
                await receive()
                for task in tasks:
                    task.cancel()
        await send({"type": "lifespan.shutdown.complete"})

    async def _grpc(self, scope: Scope, headers: list[tuple[bytes, bytes]], receive: Receive, send: Send) -> None:
        """One call, whatever becomes of it: only a cancellation from outside leaves here."""
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None
        live = _Live(task, loop.time())
        call = Call(scope["path"], {}, peer=_peer(scope))
        outgoing = Outgoing(send, call)
        counted = False
        self._live.add(live)
        try:
            call.metadata = HeaderMetadata(headers)
            method = self._method(call.method)
            if timeout := call.metadata.get("grpc-timeout"):
                call.deadline = live.began + _patience(str(timeout))
                self._deadlines.add(live, call.deadline)
            counted = self._gate.enter(call.method)
            unframer = Unframer(str(call.metadata.get("grpc-encoding", "")), self._limit)
            live.incoming = Incoming(receive, unframer, live.left)
            await self._answer(method, call, live, outgoing)
        except asyncio.CancelledError:
            if live.why is None:
                raise
            await self._fail(live, outgoing, live.why)
        except Exception as error:
            await self._fail(live, outgoing, self._shown(call, error))
        finally:
            self._live.discard(live)
            if call.deadline is not None:
                self._deadlines.remove(live, call.deadline)
            if counted:
                self._gate.leave()

    def _method(self, path: str) -> Unary | Stream:
        method = self._methods.get(path)
        if method is None:
            raise Unimplemented(f"no method {path[:200]}")
        return method

    async def _answer(self, method: Unary | Stream, call: Call, live: _Live, outgoing: Outgoing) -> None:
        assert live.incoming is not None
        if isinstance(method, Unary):
            response = await method.handler(call, await live.incoming.one())
            live.finished = True
            await outgoing.unary(response)
            return
        await outgoing.start()
        live.incoming.watch()
        async with aclosing(live.incoming.messages()) as messages:  # type: ignore[type-var]
            responses = method.handler(call, messages)
            try:
                async for response in responses:
                    await outgoing.message(response)
            finally:
                aclose = getattr(responses, "aclose", None)
                if aclose is not None:
                    await aclose()
        live.finished = True
        await outgoing.end()

    def _shown(self, call: Call, error: Exception) -> HeadraceError:
        """What the caller is told of an error."""
        if isinstance(error, HeadraceError):
            return error
        if type(error).__name__ != "ClientDisconnectedError":  # pyvoy has it, but exports it nowhere
            log.error("%s failed", call.method, exc_info=error)
        return Internal("internal error; the server's log has the details")

    async def _fail(self, live: _Live, outgoing: Outgoing, error: HeadraceError) -> None:
        live.finished = True
        with suppress(Exception):  # the caller is gone, most often
            await outgoing.fail(error)

    async def _poll(self) -> None:
        """Asks, for calls that last, whether their caller is still there; takes a tenth of the loop's time at most."""
        loop = asyncio.get_running_loop()
        spent = 0.0
        while True:
            await asyncio.sleep(max(POLL_SECONDS, 10 * spent))
            now = loop.time()
            for live in [live for live in self._live if live.began < now - POLL_SECONDS]:
                if live.incoming is None or live.finished:
                    continue
                with suppress(Exception):
                    if not live.incoming.over:
                        live.incoming.look_further()
                    elif await live.incoming.gone():
                        live.left()
            spent = loop.time() - now


def _patience(timeout: str) -> float:
    """Seconds until the deadline. Raises InvalidArgument, and DeadlineExceeded where there is no time at all."""
    seconds = parse_timeout(timeout)
    if seconds < CLOCK_TICK_SECONDS:
        raise DeadlineExceeded("the call's deadline had passed when it came")
    return seconds


def _peer(scope: Scope) -> str:
    client = scope.get("client")
    return f"{client[0]}:{client[1]}" if client else ""
