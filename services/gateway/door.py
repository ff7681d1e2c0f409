"""Who is let in: each call's tenant is found before its handler runs. Methods that are not named here take a key."""

from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any

from fastapi.responses import JSONResponse

from services.common.errors import HeadraceError
from services.common.tenants.access import Access
from services.common.tenants.tenant import Tenant
from services.gateway.application import AsgiApp, Event, Scope
from services.gateway.calls import Call, MethodTable, Stream, Unary

_PROTOCOL = "/inference.GRPCInferenceService"
# What load balancers and clients ask before they have anything to say; none of it tells what is served.
OPEN_METHODS = {f"{_PROTOCOL}/{name}" for name in ("ServerLive", "ServerReady", "ServerMetadata")}
# Workers prove themselves by what they read from the queue, or by the token of the broker that lives here.
OPEN_METHODS |= {"/headrace.v1.ReplyService/Attach", "/headrace.v1.BrokerService/Attach"}
OPEN_PATHS = {"/v2", "/v2/health/live", "/v2/health/ready", "/docs", "/docs/oauth2-redirect", "/redoc", "/openapi.json"}
# The console's page, which says nothing before it has a key; not its live data.
OPEN_PATHS |= {"/", "/console", "/console/console.js", "/console/console.css", "/console/icon.svg"}
# It shows what all tenants do.
OPERATORS_METHODS = {"/headrace.v1.GatewayService/GetStatus"}

_TENANT = "headrace.tenant"
TRAILER = "headrace-tenant"


def guarded(methods: MethodTable, access: Access | None) -> MethodTable:
    """The same methods behind the door; where there is no door, the very same: it costs nothing."""
    if access is None:
        return methods
    return {path: each if path in OPEN_METHODS else _guarded(each, access) for path, each in methods.items()}


def _guarded(method: Unary | Stream, access: Access) -> Unary | Stream:
    def enter(call: Call) -> None:
        call.tenant = access.tenant_of(call.metadata)
        call.trailing[TRAILER] = call.tenant.name
        if call.method in OPERATORS_METHODS:
            call.tenant.check_write()

    if isinstance(method, Unary):
        unary = method.handler

        async def handler(call: Call, body: bytes) -> bytes:
            enter(call)
            return await unary(call, body)

        return Unary(handler)
    stream = method.handler

    def stream_handler(call: Call, requests: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        enter(call)
        return stream(call, requests)

    return Stream(stream_handler)


def tenant_in(scope: MutableMapping[str, Any]) -> Tenant | None:
    """The tenant of an HTTP request that came through the door."""
    tenant = scope.get(_TENANT)
    return tenant if isinstance(tenant, Tenant) else None


class HttpDoor:
    """ASGI middleware: looks at the headers before anything reads the body.

    Args:
        refuse: the answer to a request that is not let in, by its path and what is wrong.
    """

    def __init__(self, app: AsgiApp, access: Access, refuse: Callable[[str, HeadraceError], JSONResponse]) -> None:
        self._app = app
        self._access = access
        self._refuse = refuse

    async def __call__(
        self, scope: Scope, receive: Callable[[], Awaitable[Event]], send: Callable[[Event], Awaitable[None]]
    ) -> None:
        """ASGI's entry point."""
        if scope["type"] == "http" and scope["path"] not in OPEN_PATHS:
            headers = {key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]}
            try:
                scope[_TENANT] = self._access.tenant_of(headers)
            except HeadraceError as error:
                await self._refuse(scope["path"], error)(scope, receive, send)
                return
        await self._app(scope, receive, send)
