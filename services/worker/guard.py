"""The end of a process whose memory leaks: before the system ends it, it drains and starts again."""

import asyncio
import logging
from collections.abc import Callable

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
# Beside the budget: what runs need, and what a heap cannot give back.
SLACK_BYTES = 512 * 2**20


def memory_limit(asked: int, budget: int, at_start: int) -> int:
    """Bytes over which the process starts again; 0: never.

    Args:
        asked: the setting; 0: half as much again as the budget beside what the process held at its start, and slack.
        budget: of models; 0: none, and no limit follows from it.
    """
    if asked or not budget:
        return asked
    return at_start + budget + budget // 2 + SLACK_BYTES


async def guard(limit: int, resident: Callable[[], int], give_back: Callable[[], None], stop: asyncio.Event) -> None:
    """Sets `stop` once the process holds more than `limit` even after it gave back what it could."""
    while limit and not stop.is_set():
        await asyncio.sleep(LOOK_SECONDS)
        if resident() > limit:
            await asyncio.to_thread(give_back)
            if resident() > limit:
                log.error(
                    "the process holds %d MiB, over its limit of %d MiB: some model leaks. It drains and ends, to be"
                    " started again; its queue goes on elsewhere",
                    resident() // 2**20,
                    limit // 2**20,
                )
                stop.set()
