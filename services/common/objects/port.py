"""The port `ObjectStore`: what the registry asks of S3-compatible storage, or of a directory."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One stored object.

    Attributes:
        size: in bytes.
        etag: an opaque tag that changes with the content.
        written: when, in seconds since the epoch by the store's own clock, as `list` tells; 0 where `put` returns it.
    """

    key: str
    size: int
    etag: str
    written: float = 0.0


class ObjectStore(Protocol):
    """Keys are relative, slash-separated. All methods raise Unavailable while the store cannot be reached."""

    async def put(self, key: str, chunks: AsyncIterator[bytes], *, if_absent: bool = False) -> ObjectInfo:
        """Stores an object, whole or not at all.

        Raises:
            AlreadyExists: `if_absent` was asked for and the key is taken. Only as strong as the store's conditional
                writes: see docs/registry.md.
        """

    def get(self, key: str) -> AsyncIterator[bytes]:
        """The object's bytes in chunks. Raises NotFound."""

    def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        """Objects below the prefix, in key order."""

    async def delete(self, key: str) -> None:
        """Removes the object; nothing happens if it is not there."""

    async def url(self, key: str, expires: float) -> str:
        """Where anybody can read the object for `expires` seconds: presigned http(s):// or file://."""
