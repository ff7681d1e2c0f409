"""A small application for the tests of the two hosts, and the process that serves it: `python -m … [FRONT]`."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

from services.common.errors import FailedPrecondition, HeadraceError, NotFound
from services.common.lifecycle import run
from services.common.tls import Tls
from services.gateway.application import Application, AsgiApp, Event, Scope
from services.gateway.calls import Call, MethodTable, Stream, Unary
from services.gateway.hosts.asgi import GrpcAsgiApp
from services.gateway.hosts.launcher import run_host
from services.gateway.hosts.serving import Send
from services.gateway.settings import GatewaySettings

PACKAGE = "/grpc.health.v1.Echo"


class Echo:
    """Handlers, and what became of the calls that were told to wait."""

    def __init__(self) -> None:
        self.waiting = 0
        self.cancelled = 0
        self.flooded = 0
        self.release = asyncio.Event()

    def methods(self) -> MethodTable:
        """Full method path → handler."""
        unary = {"Unary": self.echo, "Wait": self.wait, "Fail": self.fail, "Metadata": self.metadata}
        streams = {"Chat": self.chat, "Idle": self.idle, "Deaf": self.deaf, "Flood": self.flood, "Half": self.half}
        return {
            **{f"{PACKAGE}/{name}": Unary(handler) for name, handler in unary.items()},
            **{f"{PACKAGE}/{name}": Stream(handler) for name, handler in streams.items()},
            f"{PACKAGE}/State": Unary(self.state),
            f"{PACKAGE}/Release": Unary(self.let_go),
        }

    async def echo(self, call: Call, body: bytes) -> bytes:
        return body

    async def state(self, call: Call, body: bytes) -> bytes:
        return json.dumps({"waiting": self.waiting, "cancelled": self.cancelled, "flooded": self.flooded}).encode()

    async def let_go(self, call: Call, body: bytes) -> bytes:
        """Lets those go that wait now."""
        self.release.set()
        self.release = asyncio.Event()
        return b""

    async def wait(self, call: Call, body: bytes) -> bytes:
        async with self._noted():
            await self.release.wait()
            return body

    async def fail(self, call: Call, body: bytes) -> bytes:
        call.trailing["why"] = "asked"
        match body:
            case b"bug":
                raise ZeroDivisionError("secret")
            case b"long":
                raise NotFound("ü" * 100_000)
            case b"broken text":
                raise NotFound("\ud800\r\n")
            case _:
                raise NotFound("größe 漢字 100%\nsecond line")

    async def metadata(self, call: Call, body: bytes) -> bytes:
        assert call.peer
        call.trailing |= {"text": str(call.metadata["text"]), "odd": "zwölf\r\nx: y", "raw-bin": b"\x00\xff"}
        raw = call.metadata["raw-bin"]
        assert isinstance(raw, bytes)
        return raw

    async def chat(self, call: Call, requests: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        count = 0
        async for request in requests:
            count += 1
            yield request
        call.trailing["count"] = str(count)

    async def idle(self, call: Call, requests: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Reads one message and no more, as a server-streaming method does."""
        yield await anext(requests)
        async with self._noted():
            await self.release.wait()

    async def deaf(self, call: Call, requests: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Reads nothing until released, then everything."""
        yield b"listening"
        async with self._noted():
            await self.release.wait()
        async for request in requests:
            yield str(len(request)).encode()

    async def flood(self, call: Call, requests: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Sends 64 KiB messages for as long as they are taken; `State` counts them."""
        async with self._noted():
            while True:
                self.flooded += 1
                yield bytes(65536)

    async def half(self, call: Call, requests: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        yield b"one"
        raise FailedPrecondition("broke off")

    @asynccontextmanager
    async def _noted(self) -> AsyncIterator[None]:
        self.waiting += 1
        try:
            yield
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled += 1
            raise
        finally:
            self.waiting -= 1


@dataclass(frozen=True, slots=True)
class EchoApplication:
    """Implements Application."""

    methods: MethodTable
    http: AsgiApp

    def ready(self) -> bool:
        return True


@asynccontextmanager
async def echo_application(
    settings: GatewaySettings, front: str, advertise: str, tls: Tls | None = None
) -> AsyncIterator[Application]:
    """A running echo. `registry` says what shall go wrong."""
    if settings.registry == "broken":
        raise FailedPrecondition("the registry is broken")
    echo = Echo()

    async def http(scope: Scope, receive: Callable[[], Awaitable[Event]], send: Send) -> None:
        if scope["path"] == "/wait":
            await echo.wait(Call("/wait", {}), b"")
        body = json.dumps({"front": front, "advertise": advertise, "http": settings.http_listen}).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": body})

    yield EchoApplication(echo.methods(), http)


def _factory() -> AbstractAsyncContextManager[Application]:
    settings = GatewaySettings()
    return echo_application(settings, "envoy", settings.listen)


app = GrpcAsgiApp(_factory, lambda: GatewaySettings().max_request_bytes)


async def main(stop: asyncio.Event) -> None:
    settings = GatewaySettings()
    try:
        app, unary = "tests.integration.hosts_echo:app", (f"{PACKAGE}/Unary",)
        await run_host("echo", settings, echo_application, app, stop, unary=unary)
    except HeadraceError as error:
        sys.exit(f"echo: {error}")


if __name__ == "__main__":
    run(main)
