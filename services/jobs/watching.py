"""A job's progress as it happens."""

import asyncio
from collections.abc import AsyncIterator

from services.jobs.job import View
from services.jobs.store import JobStore

POLL_SECONDS = 0.5


async def watch(jobs: JobStore, job: str) -> AsyncIterator[View]:
    """The job as it is, then each time that it got on, until it has ended. Raises NotFound."""
    last = None
    while True:
        view = await jobs.view(job)
        if view != last:
            yield view
            last = view
        if view.end is not None:
            return
        await asyncio.sleep(POLL_SECONDS)
