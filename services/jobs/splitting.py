"""Lines out of a stream of bytes that is cut anywhere."""

from collections.abc import AsyncIterator

from services.common.errors import InvalidArgument

MOST_LINE_BYTES = 32 * 1024 * 1024


async def numbered_lines(content: AsyncIterator[bytes]) -> AsyncIterator[tuple[int, bytes]]:
    """Lines that are not blank, each with its number in the file, counted from 1.

    Raises:
        InvalidArgument: a line is over MOST_LINE_BYTES.
    """
    number, begun = 1, bytearray()
    async for piece in content:
        begun += piece
        if b"\n" in piece:
            *whole, last = bytes(begun).split(b"\n")
            for line in whole:
                if line.strip():
                    yield number, line
                number += 1
            begun = bytearray(last)
        if len(begun) > MOST_LINE_BYTES:
            raise InvalidArgument(f"line {number} is over {MOST_LINE_BYTES // 2**20} MiB")
    if begun.strip():
        yield number, bytes(begun)
