"""Which jobs are run: by one process among several, the oldest first, so many at a time."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable

from services.common.errors import HeadraceError
from services.jobs.job import Target, Why
from services.jobs.observation import JobObserver
from services.jobs.run import Ask, JobRun
from services.jobs.store import JobStore

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0
RETRY_SECONDS = 10.0
# Jobs under way at a time: one whose model has no worker does not hold up the others.
MOST_JOBS = 16


class Runner:
    """Runs what is not ended while this process is the active one.

    Args:
        active: whether it is, now.
        ahead: most chunks under way for each job.

    Attributes:
        news: set when there may be something to do: a job came, or was cancelled.
    """

    def __init__(
        self, jobs: JobStore, ask: Ask, observer: JobObserver, *, active: Callable[[], bool], ahead: int
    ) -> None:
        self._jobs = jobs
        self._ask = ask
        self._observer = observer
        self._active = active
        self._ahead = ahead
        self._runs: dict[str, tuple[JobRun, asyncio.Task[None]]] = {}
        self.news = asyncio.Event()

    def waiting(self) -> dict[Target, int]:
        """Requests of jobs under way that are not sent yet, by model."""
        all_of_them = Counter[Target]()
        for run, _ in self._runs.values():
            all_of_them.update(run.waiting())
        return {target: requests for target, requests in all_of_them.items() if requests}

    async def run(self) -> None:
        """Looks for ever; a process that is no longer the active one lets go of everything."""
        async with asyncio.TaskGroup() as group:
            while True:
                self.news.clear()
                if self._active():
                    try:
                        await self._look(group)
                    except HeadraceError as error:
                        log.warning("cannot look for jobs: %s", error)
                else:
                    for _, task in self._runs.values():
                        task.cancel()
                try:
                    await asyncio.wait_for(self.news.wait(), POLL_SECONDS)
                except TimeoutError:
                    continue

    async def _look(self, group: asyncio.TaskGroup) -> None:
        """Begins jobs and passes on who was cancelled. Raises Unavailable."""
        for job in (await self._jobs.unfinished())[:MOST_JOBS]:
            if job not in self._runs:
                run = JobRun(self._jobs, job, self._ask, self._observer, ahead=self._ahead)
                self._runs[job] = run, group.create_task(self._one(job, run), name=job)
                self._observer.running(len(self._runs))
            if await self._jobs.cancelled(job) is not None:
                self._runs[job][0].stop(Why.CANCELLED)

    async def _one(self, job: str, run: JobRun) -> None:
        """Until it has ended; one that cannot be run is begun again a while later."""
        try:
            await run.run()
            self.news.set()
        except Exception:  # one bad job must not end the others
            log.exception("job %s broke off and is begun again", job)
            await asyncio.sleep(RETRY_SECONDS)
        finally:
            del self._runs[job]
            self._observer.running(len(self._runs))
