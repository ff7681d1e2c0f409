"""A stream read to its end: what callers get who do not want to see it come."""

from collections.abc import Iterable
from contextlib import aclosing
from dataclasses import dataclass

from headrace.v1.text_generation_pb2 import TextChunk
from services.common.errors import Internal
from services.gateway.backend import Events, TextEnd


@dataclass(frozen=True, slots=True)
class Collected:
    """Whole sequences, by index, and what came with the end."""

    sequences: list[TextChunk]
    end: TextEnd


async def collect(events: Events) -> Collected:
    """Reads all. Raises what the generation failed with."""
    chunks: list[TextChunk] = []
    async with aclosing(events):
        async for event in events:
            if isinstance(event, TextEnd):
                return Collected(joined(chunks), event)
            chunks.append(event)
    raise Internal("a generation ended without its end; this is a fault of the gateway's")


def joined(chunks: Iterable[TextChunk]) -> list[TextChunk]:
    """Whole sequences by index, made of their pieces in order; the first piece of each becomes the whole."""
    whole: dict[int, TextChunk] = {}
    texts: dict[int, list[str]] = {}
    for chunk in chunks:
        texts.setdefault(chunk.index, []).append(chunk.text)
        known = whole.setdefault(chunk.index, chunk)
        if known is not chunk:
            # Lists are joined and what is set is taken over: the end is in the last piece. Offsets stay the first's.
            chunk.ClearField("token_offset")
            chunk.ClearField("text_offset")
            chunk.ClearField("text")
            known.MergeFrom(chunk)
    for index, chunk in whole.items():
        chunk.text = "".join(texts[index])
    return [whole[index] for index in sorted(whole)]
