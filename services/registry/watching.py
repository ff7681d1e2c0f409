"""Who watches the catalogue, and telling them what changed."""

import asyncio
import logging
from collections.abc import AsyncIterator

from headrace.v1.model_pb2 import Model
from headrace.v1.registry_pb2 import WatchModelsResponse
from services.common.errors import HeadraceError
from services.registry.catalog import Catalog

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0


class Watchers:
    """Looks at the store when told to and about each second, and sends the differences to every watcher."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._known: dict[str, Model] = {}
        self._queues: set[asyncio.Queue[WatchModelsResponse]] = set()
        self._looking = asyncio.Lock()

    async def look(self) -> None:
        """Compares the store with what was known and sends what differs."""
        async with self._looking:
            models = await self._catalog.models()
            events = [
                WatchModelsResponse(changed=model) for name, model in models.items() if model != self._known.get(name)
            ]
            events += [WatchModelsResponse(deleted=name) for name in self._known if name not in models]
            self._known = models
            for queue in self._queues:
                for event in events:
                    queue.put_nowait(event)

    async def poll(self) -> None:
        """Looks for ever; other registries write to the same store."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            try:
                await self.look()
            except HeadraceError as error:
                log.warning("cannot look at the store: %s", error)

    async def watch(self) -> AsyncIterator[WatchModelsResponse]:
        """Everything, `synced`, then changes."""
        queue: asyncio.Queue[WatchModelsResponse] = asyncio.Queue()
        for model in self._known.values():
            queue.put_nowait(WatchModelsResponse(changed=model))
        queue.put_nowait(WatchModelsResponse(synced=True))
        self._queues.add(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self._queues.discard(queue)
