"""From a URL to an object store, and what that store can be relied on for."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from services.common.errors import AlreadyExists, Conflict, InvalidArgument, Unavailable
from services.common.objects.directory import DirectoryStore
from services.common.objects.port import ObjectStore

PROBE_RACERS = 8


async def open_store(url: str, ca: str = "") -> ObjectStore:
    """Opens `file:///folder` or `s3://bucket/prefix?endpoint=http://host:port&region=name`.

    Args:
        ca: file with the issuers of the certificate of an `https` endpoint; empty: AWS_CA_BUNDLE's, or those of boto3.

    Raises:
        InvalidArgument: the URL is neither.
        Unavailable, PermissionDenied: the store cannot be used.
    """
    parts = urlsplit(url)
    if parts.scheme == "file" and parts.path:
        return DirectoryStore(Path(unquote(parts.path)))
    if parts.scheme == "s3" and parts.netloc:
        from services.common.objects.s3 import S3Store  # noqa: PLC0415  # boto3 only where it is used

        options = parse_qs(parts.query)
        if unknown := options.keys() - {"endpoint", "region"}:
            raise InvalidArgument(f"store '{url}': unknown option '{min(unknown)}'; known are endpoint and region")
        endpoint, region = (options.get(name, [None])[0] for name in ("endpoint", "region"))
        store = S3Store(parts.netloc, parts.path, endpoint, region, ca)
        await store.ensure_bucket()
        return store
    raise InvalidArgument(
        f"store '{url}': expected file:///folder or s3://bucket/prefix?endpoint=http://host:port&region=name"
    )


async def honours_conditions(store: ObjectStore) -> bool:
    """Whether just one of several concurrent writes "only if absent" wins.

    Some S3 servers accept the header and ignore it; others look first and write then, which a race shows.
    """
    key = f"probes/{secrets.token_hex(8)}"

    async def wins(number: int) -> bool:
        try:
            await store.put(key, one(b"%d" % number), if_absent=True)
        except (AlreadyExists, Conflict):
            return False
        return True

    try:
        return sum(await asyncio.gather(*(wins(number) for number in range(PROBE_RACERS)))) == 1
    finally:
        await store.delete(key)


async def clock_of(store: ObjectStore) -> float:
    """What the store's own clock says, in seconds since the epoch: what objects' ages are counted by.

    Raises:
        Unavailable: the store cannot be used, or forgets what was written.
    """
    key = f"probes/{secrets.token_hex(8)}"
    await store.put(key, one(b"."))
    try:
        async for info in store.list(key):
            return info.written
        raise Unavailable("the store does not list what was just written to it; it must (see docs/registry.md)")
    finally:
        await store.delete(key)


async def one(content: bytes) -> AsyncIterator[bytes]:
    """A single chunk as a stream."""
    yield content


async def whole(store: ObjectStore, key: str) -> bytes:
    """A small object in one piece. Raises NotFound."""
    return b"".join([chunk async for chunk in store.get(key)])
