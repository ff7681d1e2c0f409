"""What both hosts add to an application: health, reflection, and the gate that closes when the process drains."""

import asyncio
import json
from collections.abc import Awaitable, Callable

from services.common.errors import Unavailable, status_of
from services.gateway.application import Application, AsgiApp, Event, Scope
from services.gateway.calls import MethodTable
from services.gateway.protocol.health import Health
from services.gateway.protocol.reflection import SERVICES as REFLECTION
from services.gateway.protocol.reflection import Reflection

Send = Callable[[Event], Awaitable[None]]
# Streams that workers, balancers and open consoles hold: they go on until the callers' requests are done, and nothing
# waits for their end.
_INTERNAL = (
    "/headrace.v1.ReplyService/",
    "/headrace.v1.BrokerService/",
    "/grpc.health.v1.Health/",
    "/grpc.reflection.",
    "/console/live",
)


class Gate:
    """Counts the calls in flight; once closed, new ones are refused and health says NOT_SERVING."""

    def __init__(self, application: Application) -> None:
        self._application = application
        self._open = True
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def ready(self) -> bool:
        """What health reports."""
        return self._open and self._application.ready()

    def enter(self, method: str) -> bool:
        """A call begins; whether it is counted, and so must `leave`. Raises Unavailable while draining."""
        if method.startswith(_INTERNAL):
            return False
        if not self._open:
            raise Unavailable("this gateway is shutting down; try another")
        if not self._in_flight:
            self._idle.clear()
        self._in_flight += 1
        return True

    def leave(self) -> None:
        """A counted call ended."""
        self._in_flight -= 1
        if not self._in_flight:
            self._idle.set()

    async def drain(self, patience: float) -> bool:
        """Closes, waits for the calls in flight; False if some were left after `patience` seconds."""
        self._open = False
        try:
            await asyncio.wait_for(self._idle.wait(), patience)
        except TimeoutError:
            return False
        return True


def with_standard_services(application: Application, gate: Gate) -> MethodTable:
    """The application's methods beside health and reflection."""
    names = {path.split("/")[1] for path in application.methods} | {"grpc.health.v1.Health"}
    return {
        **Health(gate.ready, names).methods(),
        **Reflection([*names, *REFLECTION]).methods(),
        **application.methods,
    }


def gated(http: AsgiApp, gate: Gate) -> AsgiApp:
    """The same application, its requests counted by the gate and refused with 503 once that is closed."""

    async def application(scope: Scope, receive: Callable[[], Awaitable[Event]], send: Send) -> None:
        try:
            counted = gate.enter(scope["path"])
        except Unavailable as error:
            await _refuse(error, send)
            return
        try:
            await http(scope, receive, send)
        finally:
            if counted:
                gate.leave()

    return application


async def _refuse(error: Unavailable, send: Send) -> None:
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status_of(error).http, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps({"error": str(error)}).encode()})
