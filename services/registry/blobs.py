"""The bytes behind versions, once each, and how publications keep them from the collector: see collector.py.

blobs/sha256/<digest>     the bytes
garbage/pins/<token>      a publication under way: the digests that it is about to use, one a line
garbage/sweeps/<token>    a sweep under way: the digests that may be gone at any moment, one a line
"""

import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

from headrace.v1.model_pb2 import ModelFile
from services.common.errors import FailedPrecondition, HeadraceError, InvalidArgument, NotFound, Unavailable
from services.common.objects.connect import one, whole
from services.common.objects.port import ObjectInfo, ObjectStore
from services.registry.uploads import verified

BLOBS, PINS, SWEEPS = "blobs/sha256/", "garbage/pins/", "garbage/sweeps/"
# A publication writes no manifest later than this after its pin, a sweep deletes nothing later than the other.
PIN_SECONDS, SWEEP_SECONDS = 300.0, 120.0
# Pins and sweeps this old, by the store's clock, were left by processes that died: far over what either may take, with
# the time that the last call to a store may hang (minutes) and clocks that run unlike.
STALE_SECONDS = 1800.0


class Pin:
    """A publication's claim on its blobs."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._until = clock() + PIN_SECONDS

    def check(self) -> None:
        """Raises Unavailable where the manifest may not be written any more."""
        if self._clock() > self._until:
            raise Unavailable(f"the store was so slow that publishing took over {PIN_SECONDS:.0f} s; try again")


class Blobs:
    """Blobs by their digests. All methods raise Unavailable while the store cannot be reached."""

    def __init__(self, store: ObjectStore, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock

    async def missing(self, digests: Iterable[str]) -> list[str]:
        """Which the store lacks or is about to sweep, each once."""
        return list((await self._look(digests, since=0.0))[1])

    async def upload(self, digest: str, size: int, chunks: AsyncIterator[bytes]) -> None:
        """Stores a blob. A stream that does not hash to its name leaves nothing visible; one that is there is not read.

        Raises:
            InvalidArgument: digest or size do not match what came.
        """
        if await self.missing([digest]):
            await self._store.put(BLOBS + digest, verified(chunks, digest, size))

    async def url(self, digest: str, expires: float) -> str:
        """Where it can be read for `expires` seconds."""
        return await self._store.url(BLOBS + digest, expires)

    @asynccontextmanager
    async def pinned(self, files: list[ModelFile]) -> AsyncIterator[Pin]:
        """Within the block no sweep takes these files, so long as `Pin.check` is passed.

        Raises:
            FailedPrecondition: one is not there, or is being swept.
            InvalidArgument: a size is wrong.
        """
        pin, key, digests = Pin(self._clock), PINS + secrets.token_hex(16), {file.sha256 for file in files}
        await self._store.put(key, one("\n".join(sorted(digests)).encode()))
        try:
            (written,) = [info.written async for info in self._store.list(key)]
            present, lacking = await self._look(digests, since=written - STALE_SECONDS)
            if lacking:
                raise FailedPrecondition(
                    f"{len(lacking)} blobs are not uploaded or just being swept, the first is {min(lacking)}; ask which"
                    " are missing, upload, retry"
                )
            for file in files:
                if (size := present[file.sha256].size) != file.size:
                    raise InvalidArgument(f"file '{file.path}' is said to have {file.size} bytes; its blob has {size}")
            yield pin
        finally:
            with contextlib.suppress(HeadraceError):  # it grows stale by itself
                await self._store.delete(key)

    async def _look(self, digests: Iterable[str], since: float) -> tuple[dict[str, ObjectInfo], set[str]]:
        """Those present, and those that are missing or named by a sweep that was begun after `since`.

        Sweeps are read before blobs: of a sweep that is over, what it took is seen to be gone.
        """
        swept = await listed_in(self._store, SWEEPS, since)
        present, lacking = dict[str, ObjectInfo](), set[str]()
        for digest in dict.fromkeys(digests):
            found = [info async for info in self._store.list(BLOBS + digest) if info.key == BLOBS + digest]
            if found and digest not in swept:
                present[digest] = found[0]
            else:
                lacking.add(digest)
        return present, lacking


async def listed_in(store: ObjectStore, prefix: str, since: float) -> set[str]:
    """What all pins or all sweeps name that were written after `since`, by the store's clock."""
    named = set[str]()
    for info in [info async for info in store.list(prefix)]:
        if info.written >= since:
            with contextlib.suppress(NotFound):  # over since it was listed
                named |= set((await whole(store, info.key)).decode().split())
    return named
