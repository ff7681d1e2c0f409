"""One job being run, chunk after chunk, until each has its results."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from services.common.errors import Unavailable
from services.jobs.chunks import counts, pack, remaining
from services.jobs.job import End, Spec, State, Target, Why
from services.jobs.lines import Request, Result
from services.jobs.observation import JobObserver
from services.jobs.store import JobStore

log = logging.getLogger(__name__)

STORE_RETRY_SECONDS = 1.0

T = TypeVar("T")
# A request, and the tenant whose it is ("": this service's own).
Ask = Callable[[Request, str], Awaitable[Result]]


class JobRun:
    """Runs what is left of a job. May be cancelled and begun again at any moment, here or elsewhere.

    Args:
        ask: answers one request, however long that takes.
        ahead: most chunks under way: the next one begins while the last requests of another are still running.
    """

    def __init__(self, jobs: JobStore, job: str, ask: Ask, observer: JobObserver, *, ahead: int) -> None:
        self._jobs = jobs
        self._job = job
        self._ask = ask
        self._observer = observer
        self._ahead = asyncio.Semaphore(ahead)
        self._spec: Spec | None = None
        self._not_begun = 0
        self._stopped: asyncio.Future[Why] = asyncio.get_running_loop().create_future()

    def stop(self, why: Why) -> None:
        """What is not answered is given up, and gets an error."""
        if not self._stopped.done():
            self._stopped.set_result(why)

    def waiting(self) -> dict[Target, int]:
        """Requests that are not under way yet, by model."""
        return self._spec.unsent(self._not_begun) if self._spec is not None and not self._stopped.done() else {}

    async def run(self) -> None:
        """Returns once the job has ended."""
        job, loop = self._job, asyncio.get_running_loop()
        spec = self._spec = await _insist(lambda: self._jobs.spec(job))
        left = remaining(spec.chunks, await _insist(lambda: self._jobs.done(job)))
        self._not_begun = len(left)
        timer = loop.call_later(max(0.0, spec.expires_ms / 1000 - time.time()), self.stop, Why.EXPIRED)
        log.info("job %s: %d of %d chunks to run", job, len(left), spec.chunks)
        try:
            async with asyncio.TaskGroup() as group:
                for number in left:
                    await self._ahead.acquire()
                    self._not_begun -= 1
                    group.create_task(self._chunk(number), name=f"{job} {number}")
            await self._end()
        finally:
            timer.cancel()
            self._stopped.cancel()

    async def _chunk(self, number: int) -> None:
        try:
            requests = await _insist(lambda: self._jobs.input(self._job, number))
            async with asyncio.TaskGroup() as group:
                asked = [group.create_task(self._result(request)) for request in requests]
            results = [task.result() for task in asked]
            lines = [
                result.line(f"batch_req_{self._job}_{number}_{place}", request.custom_id)
                for place, (request, result) in enumerate(zip(requests, results, strict=True))
            ]
            packed = pack(lines, [result.failed for result in results])
            if await _insist(lambda: self._jobs.put_result(self._job, number, packed)):
                self._observer.wrote(counts(packed))
        finally:
            self._ahead.release()

    async def _result(self, request: Request) -> Result:
        """The answer, or why there is none."""
        if self._stopped.done():
            return Result(0, error=self._stopped.result().error)
        asking = asyncio.ensure_future(self._ask(request, self._spec.tenant if self._spec is not None else ""))
        try:
            either: set[asyncio.Future[Any]] = {asking, self._stopped}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            return asking.result() if asking.done() else Result(0, error=self._stopped.result().error)
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)

    async def _end(self) -> None:
        state = self._stopped.result().state if self._stopped.done() else State.COMPLETED
        all_of_it = await _insist(lambda: self._jobs.progress(self._job))
        end = End(state.value, time.time_ns() // 1_000_000, all_of_it.completed, all_of_it.failed)
        await _insist(lambda: self._jobs.end(self._job, end))
        self._observer.ended(state)
        log.info("job %s %s: %d answered, %d failed", self._job, state.value, end.completed, end.failed)


async def _insist(action: Callable[[], Awaitable[T]]) -> T:
    """Until the store is there."""
    while True:
        try:
            return await action()
        except Unavailable as error:
            log.warning("the store is away, trying on: %s", error)
            await asyncio.sleep(STORE_RETRY_SECONDS)
