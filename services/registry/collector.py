"""Removes blobs that no version uses, beside pushes and other collectors, on stores that have no locks.

All that a store must give is that what was written is seen by whoever reads or lists afterwards. A sweep and a
publication tell each other what they are about to do before they look at what the other does:

    a sweep                                     a publication
    S1  writes which blobs it may remove        P1  writes a pin: which blobs it uses
    S2  reads the pins                          P2  reads the sweeps: is one of its blobs in them?
    S3  reads the manifests                     P3  looks whether its blobs are there
    S4  removes blobs that S2, S3 do not name   P4  writes the manifest
    S5  removes what S1 wrote                   P5  removes the pin

Say that the blob b is removed in S4 and used in P4. Then S2 did not see the pin: it came before P1, or after P5. After
P5 is after P4, and S3, which comes later still, would have seen the manifest. So S1 < S2 < P1 < P2, and P2 sees the
sweep, and the publication is refused; unless S5 was over, and then so was S4, and P3 finds b gone, or there because it
was uploaded since, which no harm comes to from this sweep. Two sweeps are two such stories, since each has its own S1.

Refused publications ask once more what is missing (b is, in a sweep), upload that and try again; an upload is young, so
that only the sweep that had named it before may take it. The grace period is no part of this argument: it keeps
what was uploaded and is still to be published from being sent twice.

Whoever dies leaves a pin or a sweep behind. Pins and sweeps that are stale by the store's clock count for nothing, and
whoever is alive writes a manifest, or removes a blob, only well before its own would be stale (blobs.py has the times).
A sweep whose removals did not all succeed is left behind, too: one of them may still be under way in the store.
"""

import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from google.protobuf.json_format import Parse, ParseError

from headrace.v1.model_pb2 import ModelVersion
from services.common.errors import FailedPrecondition, HeadraceError, InvalidArgument
from services.common.objects.connect import clock_of, one, whole
from services.common.objects.port import ObjectInfo, ObjectStore
from services.registry.blobs import BLOBS, PINS, STALE_SECONDS, SWEEP_SECONDS, SWEEPS, listed_in
from services.registry.changes import CHANGES
from services.registry.rules import check_digest, parse_key

log = logging.getLogger(__name__)

GRACE_SECONDS = 24 * 3600
# At a time: while a sweep is under way, its blobs cannot be published.
MOST_IN_SWEEP = 100


@dataclass(frozen=True, slots=True)
class Blob:
    """One that nobody uses; its size in bytes."""

    digest: str
    size: int


@dataclass(slots=True)
class Collected:
    """What came of a collection, or would.

    Attributes:
        used, young, left: how many blobs stay because a version uses them; because they are younger than the grace
            period; because a push has begun to use them meanwhile, or the store was too slow.
    """

    collected: list[Blob] = field(default_factory=list)
    used: int = 0
    young: int = 0
    left: int = 0


class Collector:
    """Collects garbage when told to.

    Args:
        ended: told what came of each collection that removes things; None: it failed.
    """

    def __init__(
        self,
        store: ObjectStore,
        ended: Callable[[Collected | None], None] = lambda _: None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._ended = ended
        self._clock = clock
        self._read: dict[str, tuple[str, set[str]]] = {}  # manifest's key → (etag, the digests that it names)

    async def collect(self, grace_seconds: float = GRACE_SECONDS, *, dry_run: bool = False) -> Collected:
        """One collection.

        Raises:
            FailedPrecondition: a manifest is damaged, so that it cannot be told what it uses; nothing was removed.
            Unavailable: the store cannot be reached; what was not removed yet stays.
        """
        try:
            found = await self._collect(grace_seconds, dry_run=dry_run)
        except HeadraceError:
            self._ended(None)
            raise
        if not dry_run:
            size = sum(blob.size for blob in found.collected)
            log.info(
                "removed %d files that no version uses, %d bytes; %d are used, %d too young, %d left for the next time",
                *(len(found.collected), size, found.used, found.young, found.left),
            )
            self._ended(found)
        return found

    async def _collect(self, grace_seconds: float, *, dry_run: bool) -> Collected:
        now, found, garbage = await clock_of(self._store), Collected(), list[Blob]()
        blobs = [info async for info in self._store.list(BLOBS) if _is_digest(info.key.removeprefix(BLOBS))]
        used = await self._used(now)
        for info in blobs:
            digest = info.key.removeprefix(BLOBS)
            if digest in used:
                found.used += 1
            elif now - info.written < grace_seconds:
                found.young += 1
            else:
                garbage.append(Blob(digest, info.size))
        if dry_run:
            found.collected = garbage
            return found
        await self._forget_the_dead(now)
        for start in range(0, len(garbage), MOST_IN_SWEEP):
            found.collected += await self._sweep(garbage[start : start + MOST_IN_SWEEP])
        found.left = len(garbage) - len(found.collected)
        return found

    async def _sweep(self, garbage: list[Blob]) -> list[Blob]:
        """S1 to S5. Returns what was removed."""
        until, key, removed = self._clock() + SWEEP_SECONDS, SWEEPS + secrets.token_hex(16), list[Blob]()
        await self._store.put(key, one("\n".join(blob.digest for blob in garbage).encode()))
        (now,) = [info.written async for info in self._store.list(key)]
        used = await self._used(now)
        for blob in garbage:
            if blob.digest not in used and self._clock() < until:
                await self._store.delete(BLOBS + blob.digest)
                removed.append(blob)
        await self._store.delete(key)
        return removed

    async def _used(self, now: float) -> set[str]:
        """What pins and manifests name; pins first, since a publication writes its manifest before it drops its pin."""
        used = await listed_in(self._store, PINS, now - STALE_SECONDS)
        for info in [info async for info in self._store.list("models/")]:
            key = parse_key(info.key)
            if key is not None and key.number and info.size:  # deleted versions are empty
                used |= await self._named_by(info)
        return used

    async def _named_by(self, manifest: ObjectInfo) -> set[str]:
        etag, named = self._read.get(manifest.key, ("", set[str]()))
        if etag != manifest.etag:
            content = await whole(self._store, manifest.key)
            try:
                version = Parse(content, ModelVersion(), ignore_unknown_fields=True) if content else ModelVersion()
            except ParseError as error:
                raise FailedPrecondition(
                    f"the manifest '{manifest.key}' is damaged, so what it uses is not known and nothing is removed:"
                    " delete that object, or bring it back"
                ) from error
            named = {file.sha256 for file in version.files}
            self._read[manifest.key] = manifest.etag, named
        return named

    async def _forget_the_dead(self, now: float) -> None:
        for prefix in (PINS, SWEEPS, CHANGES):
            for info in [info async for info in self._store.list(prefix)]:
                if info.written < now - STALE_SECONDS:
                    await self._store.delete(info.key)


def _is_digest(name: str) -> bool:
    try:
        check_digest(name)
    except InvalidArgument:
        return False
    return True
