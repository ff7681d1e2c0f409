"""What comes is what was announced, or nothing."""

import hashlib
from collections.abc import AsyncIterator

from services.common.errors import InvalidArgument


async def verified(chunks: AsyncIterator[bytes], digest: str, size: int) -> AsyncIterator[bytes]:
    """Passes chunks on and raises at the end, before the object appears, if they are not what was announced."""
    hasher, seen = hashlib.sha256(), 0
    async for chunk in chunks:
        hasher.update(chunk)
        seen += len(chunk)
        if seen > size:
            break
        yield chunk
    if seen != size:
        raise InvalidArgument(f"blob {digest}: {size} bytes were announced, {seen} came; send it again")
    if hasher.hexdigest() != digest:
        raise InvalidArgument(f"blob {digest}: what came hashes to {hasher.hexdigest()}; send it again")
