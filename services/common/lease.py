"""One active process among several, by an object store that honours "only if absent".

A lease is a chain of objects `<prefix><number>`, each naming its holder. The holder writes the next number
every few seconds; who writes a number first, holds it. A standby looks at the highest number; if that has not changed
for the whole term, by its own clock, it tries to write the next one. So no two clocks are ever compared, and a
holder that cannot write in time stops of its own accord before anybody else may begin.
"""

import asyncio
import logging
import time
from collections.abc import Callable

from services.common.errors import AlreadyExists, Conflict, HeadraceError, NotFound
from services.common.objects.connect import one, whole
from services.common.objects.port import ObjectStore

log = logging.getLogger(__name__)

RENEW_SECONDS = 2.0
TERM_SECONDS = 8.0
# The holder stops so much before its term ends: a decision under way must be over.
MARGIN_SECONDS = 2.0


class Lease:
    """Takes and keeps the lease; `run` for ever.

    Args:
        prefix: where the chain lies: the name of what is led, with a slash at its end.
        name: how this process names itself to the others: the address at which it, and nobody else, listens.
        on_taken: called when this process becomes the active one.
    """

    def __init__(
        self,
        store: ObjectStore,
        prefix: str,
        name: str,
        on_taken: Callable[[], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._prefix = prefix
        self.name = name
        self._on_taken = on_taken
        self._clock = clock
        self._number = 0
        self._seen_at = clock()
        self._held_until = 0.0
        self.holder = ""

    @property
    def held(self) -> bool:
        """This process is the active one, now."""
        return self._clock() < self._held_until

    async def run(self) -> None:
        """Looks, takes, renews."""
        try:
            while True:
                try:
                    await self.step()
                except HeadraceError as error:
                    log.warning("cannot look at the lease: %s", error)
                await asyncio.sleep(RENEW_SECONDS)
        finally:
            await asyncio.shield(self._release())

    async def step(self) -> None:
        """One look: renews what is held, takes what has run out. Raises Unavailable."""
        began, mine = self._clock(), self.held
        latest, holder = await self._latest()
        if latest != self._number or (self.holder and holder != self.holder):
            if mine and latest != self._number:
                log.warning("%s took the lease", holder)
            self._number, self._seen_at, self.holder = latest, self._clock(), holder
            mine = False
        # Only one process listens at an address: a holder of our own name is what this process was before it restarted.
        free = not holder or holder == self.name or began - self._seen_at >= TERM_SECONDS
        if mine or free:
            await self._write(began, renews=mine)

    async def _write(self, began: float, *, renews: bool) -> None:
        try:
            await self._store.put(self._key(self._number + 1), one(self.name.encode()), if_absent=True)
        except (AlreadyExists, Conflict):
            return  # another was first: the next look tells who
        self._number += 1
        self._seen_at, self.holder = began, self.name
        self._held_until = began + TERM_SECONDS - MARGIN_SECONDS
        if not renews:
            log.info("%s: this process is the active one", self._prefix)
            self._on_taken()
        await self._store.delete(self._key(self._number - 2))  # the last but one is kept, for those who look right now

    async def _latest(self) -> tuple[int, str]:
        """The highest number and who holds it; "" where nobody does."""
        keys = [info.key async for info in self._store.list(self._prefix)]
        if not keys:
            return 0, ""
        try:
            return int(keys[-1].removeprefix(self._prefix)), (await whole(self._store, keys[-1])).decode()
        except NotFound:  # it was deleted just now: there is a later one
            return self._number, self.holder

    async def _release(self) -> None:
        """Leaves the lease to whoever comes: the others need not wait for the term's end."""
        if self.held:
            self._held_until = 0.0
            try:
                await self._store.put(self._key(self._number + 1), one(b""), if_absent=True)
            except HeadraceError as error:
                log.info("the lease was not given back, it runs out: %s", error)

    def _key(self, number: int) -> str:
        """Digits enough to sort as numbers do."""
        return f"{self._prefix}{number:012d}"
