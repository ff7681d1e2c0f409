"""What a host runs: the seam between the two hosts (Envoy, grpc.aio) and whatever answers the calls."""

from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from services.gateway.calls import MethodTable

Scope = MutableMapping[str, Any]
Event = MutableMapping[str, Any]
AsgiApp = Callable[[Scope, Callable[[], Awaitable[Event]], Callable[[Event], Awaitable[None]]], Awaitable[None]]


class Application(Protocol):
    """Built by a factory when the host starts, inside the host's event loop.

    Attributes:
        methods: gRPC handlers by full method path; health and reflection are the host's own.
        http: the ASGI application for everything that is not gRPC.
    """

    @property
    def methods(self) -> MethodTable: ...
    @property
    def http(self) -> AsgiApp: ...
    def ready(self) -> bool:
        """What the standard health service reports."""


ApplicationFactory = Callable[[], AbstractAsyncContextManager[Application]]
