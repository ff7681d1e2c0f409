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
        self._watches: set[_Watch] = set()
        self._reachable = True
        self._looking = asyncio.Lock()

    def known(self, name: str) -> Model | None:
        """A model as it was at the last look."""
        return self._known.get(name)

    async def look(self) -> None:
        """Compares the store with what was known and sends what differs."""
        async with self._looking:
            models = await self._catalog.models()
            events = [
                WatchModelsResponse(changed=model) for name, model in models.items() if model != self._known.get(name)
            ]
            events += [WatchModelsResponse(deleted=name) for name in self._known if name not in models]
            self._known = models
            for watch in self._watches:
                watch.add(events)

    async def tell(self) -> None:
        """Looks after a write of our own; the write is done, so a store that fails now is left to the next poll."""
        try:
            await self.look()
        except HeadraceError as error:
            log.warning("written, but the store cannot be looked at: %s", error)

    async def poll(self) -> None:
        """Looks for ever; other registries write to the same store."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            try:
                await self.look()
            except HeadraceError as error:
                if self._reachable:
                    log.warning("cannot look at the store, trying on: %s", error)
                self._reachable = False
            else:
                self._reachable = True

    async def watch(self) -> AsyncIterator[WatchModelsResponse]:
        """Everything, `synced`, then changes."""
        watch = _Watch()
        watch.add([WatchModelsResponse(changed=model) for model in self._known.values()])
        watch.add([WatchModelsResponse(synced=True)])
        self._watches.add(watch)
        try:
            while True:
                for event in await watch.take():
                    yield event
        finally:
            self._watches.discard(watch)


class _Watch:
    """What one watcher is still to be told: the latest of each model, so that a slow one costs no more memory."""

    def __init__(self) -> None:
        self._pending: dict[str, WatchModelsResponse] = {}
        self._some = asyncio.Event()

    def add(self, events: list[WatchModelsResponse]) -> None:
        """Later events of a model replace earlier ones."""
        for event in events:
            self._pending[event.changed.name or event.deleted] = event
            self._some.set()

    async def take(self) -> list[WatchModelsResponse]:
        """Waits for events, then takes all."""
        await self._some.wait()
        events = list(self._pending.values())
        self._pending.clear()
        self._some.clear()
        return events
