"""One change of the catalogue at a time, whichever registry makes it, on stores that have no locks.

A change is a look and a write: an ensemble may be pushed while its steps are there, a version deleted while no ensemble
needs it. Two registries that look before either writes would both be right, and their writes together wrong. So they
take tickets, as in a bakery (L. Lamport, "A new solution of Dijkstra's concurrent programming problem", 1974):

    C1  write changes/000000000000-<token>      I am about to take a ticket
    C2  list changes/
    C3  write changes/<number>-<token>          my ticket: one more than the highest seen
    C4  remove what C1 wrote
    C5  list changes/ until nothing there is lower than my ticket
    C6  read models/, decide, write to models/
    C7  remove my ticket

Say that A's ticket is lower than B's, and that B comes through C5. Its last list showed neither A's ticket nor what A
wrote in C1, which is lower than every ticket. Either A's C1 came after that list. Then A's C2 is later still, and would
have made A's ticket the higher one, unless B's was removed by then: A reads what B wrote. Or A's C4 was before that
list. Then A's ticket had been written, and not being there, had been removed again: B reads what A wrote. So one of the
two decides by what the other has written. Tickets are served in their order: nobody waits for ever.

All that a store must give is that what was written is seen by whoever reads or lists afterwards; conditional writes are
not needed.

Whoever dies leaves his ticket behind. It counts for nothing once it is stale by the store's clock, and whoever is alive
begins no write that late. The ticket of a change whose write may still be under way in the store (it did not answer) is
left behind, too.
"""

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from services.common.errors import Conflict, HeadraceError, Unavailable
from services.common.objects.connect import one
from services.common.objects.port import ObjectStore

CHANGES, DIGITS = "changes/", 12  # digits enough to sort as numbers do
# How long a change waits for others, and after what time it begins no more writes; both since it came.
WAIT_SECONDS, CHANGE_SECONDS = 20.0, 60.0
# A ticket this old, by the store's clock, was left by a process that died: far over what a change may take, with the
# time that its last call to a store may hang (boto3's tries end after some 150 s).
STALE_SECONDS = 300.0
PAUSE_SECONDS = 0.02


class Change:
    """A change, whose turn has come or will.

    Attributes:
        settled: what it wrote is known to be written, or not to be.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._until = clock() + CHANGE_SECONDS
        self.settled = True

    async def write(self, call: Coroutine[Any, Any, object]) -> None:
        """One write or removal, to its end: a caller who leaves cannot take back what the store was asked.

        Raises:
            Unavailable: too late to begin it, or the store's own.
        """
        if self._clock() > self._until:
            call.close()
            raise Unavailable(f"the store was so slow that the change took over {CHANGE_SECONDS:.0f} s; try again")
        task = asyncio.ensure_future(call)
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            await asyncio.wait([task])
            raise
        finally:
            self.settled = self.settled and _settled(task)


class Changes:
    """Whose turn it is, among the changes of this registry and of all others on the store."""

    def __init__(
        self,
        store: ObjectStore,
        *,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._pause = pause or _short_while
        self._here = asyncio.Lock()
        self._over = set[str]()  # our own keys that could not be removed

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[Change]:
        """Within the block nobody else changes the catalogue; everything that is written there goes by `Change.write`.

        Raises:
            Conflict: others were at it all the time, or one died in the middle of it.
            Unavailable: the store cannot be reached.
        """
        async with self._here:
            coming, change, token = Change(self._clock), Change(self._clock), secrets.token_hex(16)
            ticket = f"{CHANGES}{0:0{DIGITS}}-{token}"
            try:
                await coming.write(self._store.put(ticket, one(b".")))
                number = 1 + max([_number(key) for key in await self._waiting(ticket)])
                choosing, ticket = ticket, f"{CHANGES}{number:0{DIGITS}}-{token}"
                try:
                    await coming.write(self._store.put(ticket, one(b".")))
                finally:
                    await self._remove(choosing)
                await self._served(ticket)
                yield change
            finally:
                if change.settled:
                    await self._remove(ticket)

    async def _served(self, ticket: str) -> None:
        """C5. Raises Conflict."""
        latest = self._clock() + WAIT_SECONDS
        while min(await self._waiting(ticket)) < ticket:
            if self._clock() > latest:
                raise Conflict(
                    "another registry is changing the catalogue, or died while it did; try again (what a dead one has"
                    f" begun is over after {STALE_SECONDS / 60:.0f} minutes)"
                )
            await self._pause()

    async def _waiting(self, ours: str) -> list[str]:
        """The keys of all changes that are under way, our own among them."""
        written = {info.key: info.written async for info in self._store.list(CHANGES)}
        if ours not in written:
            raise Unavailable("the store does not list what was just written to it; it must (see docs/registry.md)")
        since = written[ours] - STALE_SECONDS
        return [key for key, when in written.items() if when >= since and key not in self._over]

    async def _remove(self, key: str) -> None:
        """Removes a key of ours, and those that could not be removed before."""
        self._over.add(key)
        with contextlib.suppress(HeadraceError):  # the next change tries again; and it grows stale by itself
            for each in list(self._over):
                await self._store.delete(each)
                self._over.discard(each)


def _number(key: str) -> int:
    """Of a ticket; 0: of who is about to take one."""
    number = key.removeprefix(CHANGES).partition("-")[0]
    return int(number) if number.isdigit() else 0


def _settled(task: asyncio.Future[object]) -> bool:
    """Whether the store has answered: done, or refused."""
    if not task.done() or task.cancelled():
        return False
    error = task.exception()
    return error is None or (isinstance(error, HeadraceError) and not isinstance(error, Unavailable))


async def _short_while() -> None:
    await asyncio.sleep(PAUSE_SECONDS)
