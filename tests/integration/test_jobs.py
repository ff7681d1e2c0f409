"""Who runs jobs on a real store: one process after another, any of which may be late, cut off or wrong."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from services.common.objects.connect import one
from services.common.objects.directory import DirectoryStore
from services.common.telemetry.ledger import Ledger
from services.jobs.chunks import Kind
from services.jobs.job import State, View
from services.jobs.lines import Request, Result
from services.jobs.observation import JobObserver
from services.jobs.runner import Runner
from services.jobs.store import SPECS, JobStore
from services.jobs.submission import submit

REQUESTS = 200
SECONDS = 30


class Process:
    """One job service, as far as it runs jobs.

    Attributes:
        asked: how often each request was.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.jobs = JobStore(DirectoryStore(folder))
        self.name = name
        self.active = False
        self.open = asyncio.Event()
        self.asked = Counter[str]()
        self.answered_some = asyncio.Event()
        self.runner = Runner(self.jobs, self.ask, JobObserver(Ledger()), active=lambda: self.active, ahead=4)

    async def ask(self, request: Request, tenant: str) -> Result:
        """The first 64 are answered at once, the others when the way is open."""
        self.asked[request.custom_id] += 1
        if int(request.custom_id) >= 64:
            self.answered_some.set()
            await self.open.wait()
        return Result(200, {"by": self.name})

    def activate(self, active: bool) -> None:
        """It takes the lease, or loses it."""
        self.active = active
        self.runner.news.set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Until the block ends."""
        task = asyncio.create_task(self.runner.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def submitted(jobs: JobStore, window_seconds: int = 0) -> str:
    """A job of numbered requests."""

    async def content() -> AsyncIterator[bytes]:
        for number in range(REQUESTS):
            yield json.dumps({"id": str(number)}).encode() + b"\n"

    return (await submit(jobs, content(), endpoint="/v1/completions", window_seconds=window_seconds)).id


async def ended(jobs: JobStore, job: str) -> View:
    """The job, once it has ended."""
    async with asyncio.timeout(SECONDS):
        while (view := await jobs.view(job)).end is None:  # noqa: ASYNC110  # the store tells nobody
            await asyncio.sleep(0.02)
    return view


async def results(jobs: JobStore, job: str) -> list[dict[str, object]]:
    """All of them."""
    lines = [piece async for piece in jobs.results(await jobs.spec(job), Kind.ALL)]
    return [json.loads(line) for line in b"".join(lines).splitlines()]


async def test_a_process_that_loses_the_lease_is_followed_and_what_it_had_begun_is_run_again(tmp_path: Path) -> None:
    first, second = Process(tmp_path, "first"), Process(tmp_path, "second")
    job = await submitted(first.jobs)
    async with first.running(), second.running():
        first.activate(True)
        async with asyncio.timeout(SECONDS):
            await first.answered_some.wait()
            while (await first.jobs.progress(job)).completed < 64:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        assert not second.asked
        first.activate(False)
        second.open.set()
        second.activate(True)
        view = await ended(second.jobs, job)
        first.open.set()
    assert (view.state, view.counts.completed, view.counts.failed) == (State.COMPLETED, REQUESTS, 0)
    found = await results(first.jobs, job)
    assert [result["custom_id"] for result in found] == [str(number) for number in range(REQUESTS)]
    assert {str(number) for number in range(64)}.isdisjoint(second.asked), "what was written is not run again"
    assert set(second.asked.values()) == {1}


async def test_two_that_both_think_they_are_active_write_each_result_once(tmp_path: Path) -> None:
    both = Process(tmp_path, "first"), Process(tmp_path, "second")
    job = await submitted(both[0].jobs)
    for process in both:
        process.activate(True)
        process.open.set()
    async with both[0].running(), both[1].running():
        views = [await ended(process.jobs, job) for process in both]
    assert [view.counts.completed for view in views] == [REQUESTS, REQUESTS]
    found = await results(both[0].jobs, job)
    assert [result["custom_id"] for result in found] == [str(number) for number in range(REQUESTS)]


async def test_a_job_that_cannot_be_read_does_not_hold_up_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    process = Process(tmp_path, "first")
    await DirectoryStore(tmp_path).put(f"{SPECS}job_0broken", one(b"{}"))
    job = await submitted(process.jobs)
    process.activate(True)
    process.open.set()
    async with process.running():
        assert (await ended(process.jobs, job)).state is State.COMPLETED
    assert "job job_0broken broke off" in caplog.text


async def test_a_submission_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    jobs = JobStore(DirectoryStore(tmp_path))
    half = asyncio.Event()

    async def content() -> AsyncIterator[bytes]:
        for number in range(100):
            yield json.dumps({"id": str(number)}).encode() + b"\n"
        half.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(submit(jobs, content(), endpoint="/v1/completions"))
    await asyncio.wait_for(half.wait(), SECONDS)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert [info async for info in DirectoryStore(tmp_path).list("jobs/")] == []
