"""What clients stream: a header, content in pieces, and the word that it was all."""

from collections.abc import AsyncIterator
from typing import TypeVar

from headrace.v1.jobs_pb2 import CreateFileRequest, SubmitJobRequest
from services.common.errors import InvalidArgument

Part = TypeVar("Part", SubmitJobRequest, CreateFileRequest)


async def first_part(parts: AsyncIterator[Part]) -> Part:
    """The message with the header. Raises InvalidArgument."""
    first = await anext(aiter(parts), None)
    if first is None or first.WhichOneof("part") != "header":
        raise InvalidArgument("the first message must be the header")
    return first


async def content_of(parts: AsyncIterator[Part]) -> AsyncIterator[bytes]:
    """What follows. Raises InvalidArgument where the stream breaks off."""
    async for part in parts:
        match part.WhichOneof("part"):
            case "content":
                yield part.content
            case "complete":
                return
            case _:
                raise InvalidArgument("a second header came; messages after the first carry content, then `complete`")
    raise InvalidArgument("the stream ended without `complete`; it may have broken off, send it again")
