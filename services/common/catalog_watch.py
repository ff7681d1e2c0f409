"""Keeps a listener up to date from the registry's watch; what is known is kept while the registry is away."""

import asyncio
import logging
from typing import Protocol

import grpc
from grpc import aio

from headrace.v1.model_pb2 import Model
from headrace.v1.registry_pb2 import WatchModelsRequest, WatchModelsResponse
from headrace.v1.registry_pb2_grpc import RegistryServiceStub

log = logging.getLogger(__name__)

RETRY_SECONDS = 0.5


class CatalogListener(Protocol):
    """Who wants to know: the gateway's routes, the worker's holdings."""

    def names(self) -> list[str]:
        """The models that it knows."""

    def update(self, model: Model) -> None:
        """The whole of one model, new or changed."""

    def remove(self, name: str) -> None:
        """The model is gone."""


class CatalogWatch:
    """One watch stream, begun again whenever it breaks.

    Attributes:
        connected: the stream lives and the registry has sent everything it has.
        synced: everything has been sent at least once.
    """

    def __init__(self, channel: aio.Channel, listener: CatalogListener, synced: asyncio.Event | None = None) -> None:
        self._stub = RegistryServiceStub(channel)
        self._listener = listener
        self.connected = False
        self.synced = synced or asyncio.Event()

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
        unseen = set(self._listener.names())
        async for event in self._stub.WatchModels(WatchModelsRequest(), wait_for_ready=True):
            self._take(event, unseen)

    def _take(self, event: WatchModelsResponse, unseen: set[str]) -> None:
        match event.WhichOneof("event"):
            case "changed":
                self._listener.update(event.changed)
                unseen.discard(event.changed.name)
            case "deleted":
                self._listener.remove(event.deleted)
            case "synced":
                for name in unseen:
                    self._listener.remove(name)
                self.connected = True
                self.synced.set()
