"""A local directory as an ObjectStore: for one machine, and for tests."""

import asyncio
import contextlib
import hashlib
import os
import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from services.common.errors import AlreadyExists, InvalidArgument, NotFound
from services.common.objects.port import ObjectInfo

CHUNK_BYTES = 1024 * 1024
_PARTIAL = ".partial"


class DirectoryStore:
    """Implements ObjectStore; objects are files that appear by rename, so readers never see half of one."""

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()
        (self._root / _PARTIAL).mkdir(parents=True, exist_ok=True)

    async def put(self, key: str, chunks: AsyncIterator[bytes], *, if_absent: bool = False) -> ObjectInfo:
        """Writes beside, syncs, then links or renames into place."""
        target = self._path(key)
        partial = self._root / _PARTIAL / secrets.token_hex(16)
        size = 0
        try:
            with partial.open("xb") as file:
                async for chunk in chunks:
                    size += len(chunk)
                    await asyncio.to_thread(file.write, chunk)
                await asyncio.to_thread(_sync, file.fileno())
            await asyncio.to_thread(_place, partial, target, if_absent)
        except FileExistsError as error:
            raise AlreadyExists(f"object '{key}' exists") from error
        finally:
            partial.unlink(missing_ok=True)
        return ObjectInfo(key, size, _etag(target))

    async def get(self, key: str) -> AsyncIterator[bytes]:
        """Chunks of one mebibyte."""
        try:
            file = self._path(key).open("rb")
        except (FileNotFoundError, IsADirectoryError) as error:
            raise NotFound(f"no object '{key}'") from error
        with file:
            while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
                yield chunk

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        """In key order."""
        for info in await asyncio.to_thread(lambda: sorted(self._walk(prefix), key=lambda found: found.key)):
            yield info

    async def delete(self, key: str) -> None:
        """Removes the file."""
        self._path(key).unlink(missing_ok=True)

    async def url(self, key: str, expires: float) -> str:
        """A file:// URL; it does not expire."""
        path = self._path(key)
        if not path.is_file():
            raise NotFound(f"no object '{key}'")
        return path.as_uri()

    def _path(self, key: str) -> Path:
        parts = key.split("/")
        if not key or any(part in {"", ".", ".."} or part == _PARTIAL or "\0" in part for part in parts):
            raise InvalidArgument(f"object key {key!r}: expected names separated by single slashes, no '.' or '..'")
        return self._root.joinpath(*parts)

    def _walk(self, prefix: str) -> Iterator[ObjectInfo]:
        # Only whole folders are walked: the part of the prefix after the last slash is compared.
        folder = self._root.joinpath(*prefix.split("/")[:-1])
        for path in folder.rglob("*"):
            key = path.relative_to(self._root).as_posix()
            if key.startswith(prefix) and not key.startswith(_PARTIAL):
                with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                    if path.is_file():
                        yield ObjectInfo(key, path.stat().st_size, _etag(path))


def _sync(descriptor: int) -> None:
    os.fsync(descriptor)


def _place(partial: Path, target: Path, if_absent: bool) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if if_absent:
        os.link(partial, target)  # fails where the name is taken, atomically
    else:
        partial.replace(target)


def _etag(path: Path) -> str:
    status = path.stat()
    return hashlib.sha256(f"{status.st_mtime_ns} {status.st_size} {status.st_ino}".encode()).hexdigest()[:32]
