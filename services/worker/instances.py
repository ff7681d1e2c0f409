"""Several executions of one model at a time, within its turn on the device."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def several(
    most: int,
    first: T,
    take: Callable[[], T | None],
    run: Callable[[T], Coroutine[Any, Any, None]],
    news: asyncio.Event,
) -> None:
    """Runs `first` and what `take` gives, at most `most` at a time; returns once it gives nothing and all have ended.

    Args:
        news: set when `take` may have something again; cleared.
    """
    running: set[asyncio.Task[None]] = set()
    async with asyncio.TaskGroup() as group:
        batch: T | None = first
        while batch is not None or running:
            if batch is not None:
                running.add(group.create_task(run(batch)))
            if len(running) == most or (batch := take()) is None:
                woken = group.create_task(_set(news))
                await asyncio.wait({*running, woken}, return_when=asyncio.FIRST_COMPLETED)
                woken.cancel()
                running = {task for task in running if not task.done()}
                batch = take() if len(running) < most else None


async def _set(event: asyncio.Event) -> None:
    await event.wait()
    event.clear()
