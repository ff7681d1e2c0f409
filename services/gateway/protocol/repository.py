"""Triton's model repository extension: what there is, and whether workers serve it."""

import asyncio
from collections.abc import Callable
from typing import Protocol

from grpc import aio

from headrace.inference import grpc_service_pb2 as pb
from headrace.v1.registry_pb2 import SetUnloadedRequest
from headrace.v1.registry_pb2_grpc import RegistryServiceStub
from services.common.errors import FailedPrecondition, Unimplemented
from services.common.rpc import from_rpc_error
from services.gateway.backend import Backend
from services.gateway.calls import Call, check_use, credentials, may_use
from services.gateway.routes import Route, Routes

# How long a load waits for a worker where the caller set no deadline.
LOAD_SECONDS = 60.0
POLL_SECONDS = 0.05


class ModelControl(Protocol):
    """Takes models out of service and back into it."""

    async def set_unloaded(self, name: str, unloaded: bool, call: Call) -> None:
        """Raises HeadraceErrors: what the registry says."""


class RegistryControl:
    """Implements ModelControl: the registry keeps the mark, all gateways and workers watch it."""

    def __init__(self, registry: aio.Channel) -> None:
        self._stub = RegistryServiceStub(registry)

    async def set_unloaded(self, name: str, unloaded: bool, call: Call) -> None:
        """With the caller's own credentials."""
        metadata = credentials(call.metadata)  # the registry decides what they may
        try:
            await self._stub.SetUnloaded(
                SetUnloadedRequest(name=name, unloaded=unloaded), timeout=LOAD_SECONDS, metadata=metadata
            )
        except aio.AioRpcError as error:
            raise from_rpc_error(error) from error


class NoControl:
    """Implements ModelControl for a server with one model for life."""

    async def set_unloaded(self, name: str, unloaded: bool, call: Call) -> None:
        """Raises Unimplemented, unless there is nothing to do."""
        if unloaded:
            raise Unimplemented("a single replica serves its one model for life; stop it instead")


class Repository:
    """Index, load and unload."""

    def __init__(self, routes: Routes, backend: Backend, control: ModelControl) -> None:
        self._routes = routes
        self._backend = backend
        self._control = control

    async def index(self, call: Call, request: pb.RepositoryIndexRequest) -> pb.RepositoryIndexResponse:
        """Every version, with the state in which its queue is."""
        response = pb.RepositoryIndexResponse()
        for route in self._routes:
            if not may_use(call, route.name):
                continue
            reason = await self._why_not(route)
            if not (reason and request.ready):
                state = "UNAVAILABLE" if reason else "READY"
                response.models.add(name=route.name, version=str(route.version), state=state, reason=reason)
        return response

    async def load(self, call: Call, request: pb.RepositoryModelLoadRequest) -> pb.RepositoryModelLoadResponse:
        """Back into service if it was taken out of it; returns once a worker serves it.

        Raises:
            NotFound: no such model.
            FailedPrecondition: no worker serves it by the call's deadline.
            Unimplemented: the call brings files or a configuration of its own.
        """
        if request.parameters:
            raise Unimplemented(
                f"load takes no parameters, got {', '.join(sorted(request.parameters))}; publish another version with"
                " `headrace push`"
            )
        name = request.model_name
        check_use(call, name)
        if self._routes.unloaded(name):
            await self._control.set_unloaded(name, False, call)
        clock = asyncio.get_running_loop().time
        give_up_at = clock() + LOAD_SECONDS if call.deadline is None else call.deadline - 2 * POLL_SECONDS
        await self._until(lambda: not self._routes.unloaded(name), give_up_at)
        route = self._routes.resolve(name, "")
        while not await self._backend.model_ready(route):
            if clock() > give_up_at:
                raise FailedPrecondition(
                    f"no worker serves '{name}' yet; workers load what the registry publishes by themselves: start one,"
                    " or look at `headrace status` for why it failed to load"
                )
            await asyncio.sleep(POLL_SECONDS)
        return pb.RepositoryModelLoadResponse()

    async def unload(self, call: Call, request: pb.RepositoryModelUnloadRequest) -> pb.RepositoryModelUnloadResponse:
        """Out of service: what was accepted is answered, new requests are refused; its versions stay in the registry.

        Raises:
            NotFound: no such model.
            Unimplemented: a single replica.
        """
        name = request.model_name
        check_use(call, name)
        if not self._routes.unloaded(name):
            await self._control.set_unloaded(name, True, call)
            await self._until(lambda: self._routes.unloaded(name), asyncio.get_running_loop().time() + LOAD_SECONDS)
        return pb.RepositoryModelUnloadResponse()

    async def _until(self, seen: Callable[[], bool], give_up_at: float) -> None:
        """Until this gateway has heard of it: its caller's next request must find it done."""
        while True:
            if seen() or asyncio.get_running_loop().time() > give_up_at:
                return
            await asyncio.sleep(POLL_SECONDS)

    async def _why_not(self, route: Route) -> str:
        if self._routes.unloaded(route.name):
            return "unloaded"
        return "" if await self._backend.model_ready(route) else "no worker consumes its queue now"
