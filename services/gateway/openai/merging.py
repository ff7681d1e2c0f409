"""Several prompts of one request as one stream: choices are numbered through, pieces come as they come."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from headrace.v1.text_generation_pb2 import TextChunk
from services.gateway.backend import Events, TextEnd

# Pieces of all prompts that may wait for the caller; what comes beyond waits, joined, in each prompt's own stream.
WINDOW = 16


async def merged(sources: list[Events], sequences: int) -> AsyncGenerator[TextChunk | TextEnd, None]:
    """Pieces of every source, their index moved by `sequences` for each before it; then one end for each.

    The first error ends all.
    """
    if len(sources) == 1:
        async with aclosing(sources[0]) as events:
            async for event in events:
                yield event
        return
    waiting: asyncio.Queue[TextChunk | TextEnd | Exception] = asyncio.Queue(WINDOW)

    async def read(number: int, source: Events) -> None:
        try:
            async with aclosing(source) as events:
                async for event in events:
                    if isinstance(event, TextChunk):
                        event.index += number * sequences
                    await waiting.put(event)
        except Exception as error:  # whatever it is, the reader raises it
            await waiting.put(error)

    readers = [asyncio.create_task(read(number, source)) for number, source in enumerate(sources)]
    try:
        ended = 0
        while ended < len(sources):
            item = await waiting.get()
            if isinstance(item, Exception):
                raise item
            ended += isinstance(item, TextEnd)
            yield item
    finally:
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)
