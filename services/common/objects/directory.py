"""A local directory as an ObjectStore: for one machine, and for tests."""

import asyncio
import contextlib
import hashlib
import os
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from io import BufferedWriter
from pathlib import Path

from services.common.errors import AlreadyExists, InvalidArgument, NotFound, Unavailable
from services.common.objects.port import ObjectInfo

CHUNK_BYTES = 1024 * 1024
_PARTIAL = ".partial"
# Another process may be writing a partial file now; one this old was left by a process that died.
_ABANDONED_SECONDS = 24 * 3600.0


class DirectoryStore:
    """Implements ObjectStore; objects are files that appear by rename, so readers never see half of one.

    Raises:
        Unavailable: the folder cannot be made or written.
    """

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()
        with _translated(f"folder {self._root}"):
            (self._root / _PARTIAL).mkdir(parents=True, exist_ok=True)
            _sweep(self._root / _PARTIAL, time.time())

    async def put(self, key: str, chunks: AsyncIterator[bytes], *, if_absent: bool = False) -> ObjectInfo:
        """Writes beside, syncs, then links or renames into place."""
        target = self._path(key)
        partial = self._root / _PARTIAL / secrets.token_hex(16)
        with _translated(f"object '{key}'"):
            try:
                with partial.open("xb") as file:
                    async for chunk in chunks:
                        await asyncio.to_thread(file.write, chunk)
                    await asyncio.to_thread(_sync, file)
                    status = os.fstat(file.fileno())
                await asyncio.to_thread(self._place, partial, target, if_absent)
            finally:
                partial.unlink(missing_ok=True)
        return ObjectInfo(key, status.st_size, _etag(status))

    async def get(self, key: str) -> AsyncIterator[bytes]:
        """Chunks of one mebibyte."""
        with _translated(f"object '{key}'"), self._path(key).open("rb") as file:
            while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
                yield chunk

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        """In key order."""
        folder, _, start = prefix.rpartition("/")
        if folder:
            self._path(folder)
        with _translated(f"folder '{folder}'"):
            found = await asyncio.to_thread(
                lambda: sorted(_walk(self._root, folder, start), key=lambda info: info.key.encode())
            )
        for info in found:
            yield info

    async def delete(self, key: str) -> None:
        """Removes the file; folders stay, so that a writer never finds its own gone."""
        path = self._path(key)
        with _translated(f"object '{key}'"), contextlib.suppress(NotADirectoryError):
            path.unlink(missing_ok=True)

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

    def _place(self, partial: Path, target: Path, if_absent: bool) -> None:
        """Makes the written file visible under its name, and the name itself durable."""
        made = [folder for folder in target.parents if not folder.exists()]
        target.parent.mkdir(parents=True, exist_ok=True)
        if if_absent:
            os.link(partial, target)  # fails where the name is taken, atomically
        else:
            partial.replace(target)
        for folder in [target.parent, *(folder.parent for folder in made)]:
            _sync_folder(folder)


def _walk(root: Path, folder: str, start: str) -> Iterator[ObjectInfo]:
    """Objects in `folder` (relative to the root) and below whose first name there begins with `start`."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(root / folder) as entries:
        for entry in entries:
            if not entry.name.startswith(start) or entry.name == _PARTIAL:
                continue
            key = f"{folder}/{entry.name}" if folder else entry.name
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(root, key, "")
            elif entry.is_file(follow_symlinks=False):
                with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                    status = entry.stat()
                    yield ObjectInfo(key, status.st_size, _etag(status), status.st_mtime)


def _sync(file: BufferedWriter) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sweep(folder: Path, now: float) -> None:
    """Removes what writers that died have left. `now` is in seconds since the epoch, as files' times are."""
    for partial in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            if now - partial.stat().st_mtime > _ABANDONED_SECONDS:
                partial.unlink()


def _etag(status: os.stat_result) -> str:
    return hashlib.sha256(f"{status.st_mtime_ns} {status.st_size} {status.st_ino}".encode()).hexdigest()[:32]


@contextmanager
def _translated(what: str) -> Iterator[None]:
    """The system's errors as ours."""
    try:
        yield
    except FileExistsError as error:
        raise AlreadyExists(f"{what} exists") from error
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise NotFound(f"no {what}") from error
    except OSError as error:
        raise Unavailable(
            f"the store's {what} cannot be used: {error.strerror or error}; check disk and rights"
        ) from error
