"""Keeps the routes up to date from the registry's watch, and keeps what is known while the registry is away."""

import asyncio
import logging

import grpc
from grpc import aio

from headrace.v1.registry_pb2 import WatchModelsRequest, WatchModelsResponse
from headrace.v1.registry_pb2_grpc import RegistryServiceStub
from services.gateway.routes import Routes

log = logging.getLogger(__name__)

RETRY_SECONDS = 0.5


class CatalogWatch:
    """One watch stream, begun again whenever it breaks.

    Attributes:
        connected: the stream lives and the registry has sent everything it has.
        synced: everything has been sent at least once.
    """

    def __init__(self, channel: aio.Channel, routes: Routes) -> None:
        self._stub = RegistryServiceStub(channel)
        self._routes = routes
        self.connected = False
        self.synced = asyncio.Event()

    async def run(self) -> None:
        """Watches for ever."""
        while True:
            try:
                await self._watch()
            except grpc.RpcError as error:
                if self.connected:
                    log.warning("the registry is away, serving on what was last known: %s", error)
            self.connected = False
            await asyncio.sleep(RETRY_SECONDS)

    async def _watch(self) -> None:
        """One stream: everything, `synced`, changes. What a fresh stream no longer names is gone."""
        unseen = set(self._routes.names())
        async for event in self._stub.WatchModels(WatchModelsRequest(), wait_for_ready=True):
            self._take(event, unseen)

    def _take(self, event: WatchModelsResponse, unseen: set[str]) -> None:
        match event.WhichOneof("event"):
            case "changed":
                self._routes.update(event.changed)
                unseen.discard(event.changed.name)
            case "deleted":
                self._routes.remove(event.deleted)
            case "synced":
                for name in unseen:
                    self._routes.remove(name)
                self.connected = True
                self.synced.set()
