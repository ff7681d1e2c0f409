"""Collections from time to time, by one registry of several at a time.

When the last one was is kept in the store (`garbage/last`): a registry that starts again does not begin to count anew,
and several count together. Whoever finds a collection due holds a lease while he collects. Where the store ignores
conditional writes two may hold it at once, and both collect: that is wasteful and nothing else (collector.py).
"""

import asyncio
import logging

from services.common.errors import HeadraceError
from services.common.lease import RENEW_SECONDS, TERM_SECONDS, Lease
from services.common.objects.connect import clock_of, one
from services.common.objects.port import ObjectStore
from services.registry.collector import Collector

log = logging.getLogger(__name__)

LAST, LEASE = "garbage/last", "garbage/lease/"
# How often at most it is looked whether a collection is due.
LOOK_SECONDS = 300.0
# Time enough to see that a holder is dead; one that lives does what is to be done.
PATIENCE_SECONDS = TERM_SECONDS + 2 * RENEW_SECONDS


class Timer:
    """Has garbage collected.

    Args:
        every: seconds from one collection to the next, over all registries of the store.
        name: how this process names itself to the others: nobody else has it.
    """

    def __init__(self, store: ObjectStore, collector: Collector, every: float, name: str) -> None:
        self._store = store
        self._collector = collector
        self._every = every
        self._name = name

    async def run(self) -> None:
        """For ever; what goes wrong is left to the next look."""
        while True:
            try:
                await self.look()
            except HeadraceError as error:
                log.warning("garbage is not collected now, trying on: %s", error)
            await asyncio.sleep(min(self._every, LOOK_SECONDS))

    async def look(self) -> None:
        """Collects if it is due and nobody else does. Raises what `Collector.collect` raises."""
        if not await self._due():
            return
        taken = asyncio.Event()
        holding = asyncio.create_task(Lease(self._store, LEASE, self._name, taken.set).run(), name="garbage lease")
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await taken.wait()
        except TimeoutError:
            log.info("another registry is collecting garbage")
        else:
            if await self._due():  # others may have been at it while this one waited
                await self._collector.collect()
                await self._store.put(LAST, one(self._name.encode()))
        finally:
            holding.cancel()
            await asyncio.wait([holding])

    async def _due(self) -> bool:
        last = [info.written async for info in self._store.list(LAST) if info.key == LAST]
        return not last or await clock_of(self._store) - last[0] >= self._every
