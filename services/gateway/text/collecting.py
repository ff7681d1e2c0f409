"""A stream read to its end: what callers get who do not want to see it come."""

from contextlib import aclosing
from dataclasses import dataclass

from headrace.v1.text_generation_pb2 import FINISH_REASON_UNSPECIFIED, TextChunk
from services.common.errors import Internal
from services.gateway.backend import Events, TextEnd


@dataclass(frozen=True, slots=True)
class Collected:
    """Whole sequences, by index, and what came with the end."""

    sequences: list[TextChunk]
    end: TextEnd


async def collect(events: Events) -> Collected:
    """Reads all. Raises what the generation failed with."""
    whole: dict[int, TextChunk] = {}
    pieces: dict[int, list[str]] = {}
    async with aclosing(events):
        async for event in events:
            if isinstance(event, TextEnd):
                return Collected([_joined(whole[index], pieces[index]) for index in sorted(whole)], event)
            pieces.setdefault(event.index, []).append(event.text)
            known = whole.setdefault(event.index, event)
            if known is not event:
                _extend(known, event)
    raise Internal("a generation ended without its end; this is a fault of the gateway's")


def _extend(known: TextChunk, more: TextChunk) -> None:
    known.token_ids.extend(more.token_ids)
    known.logprobs.extend(more.logprobs)
    if more.finish_reason != FINISH_REASON_UNSPECIFIED:
        known.finish_reason = more.finish_reason
        if more.HasField("stop_string"):
            known.stop_string = more.stop_string
        if more.HasField("stop_token"):
            known.stop_token = more.stop_token


def _joined(chunk: TextChunk, pieces: list[str]) -> TextChunk:
    chunk.text = "".join(pieces)
    return chunk
