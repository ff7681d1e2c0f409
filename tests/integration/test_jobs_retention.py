"""What is kept of jobs and files, on a real folder whose files are made older than they are."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.common.errors import NotFound
from services.common.objects.connect import one
from services.common.objects.directory import DirectoryStore
from services.jobs.files import FileStore
from services.jobs.job import End, State
from services.jobs.retention import ORPHAN_SECONDS, Sweeper, Swept
from services.jobs.store import JobStore
from services.jobs.submission import submit

DAY = 24 * 3600.0


class Kept:
    """A store of jobs and files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = DirectoryStore(folder)
        self.jobs = JobStore(self.store)
        self.files = FileStore(self.store, self.jobs)

    def sweeper(self, keep_days: float = 90.0) -> Sweeper:
        return Sweeper(self.store, self.jobs, self.files, keep_days * DAY, lambda: True)

    async def job(self, *, ended: bool) -> str:
        """A job of one chunk, with its results."""

        async def content() -> AsyncIterator[bytes]:
            yield b'{"id": "one"}\n'

        job = (await submit(self.jobs, content(), endpoint="/v1/completions")).id
        await self.jobs.put_result(job, 0, json.dumps({"requests": 1, "errors": []}).encode() + b"\n{}")
        if ended:
            await self.jobs.end(job, End(State.COMPLETED.value, 0, 1, 0))
        return job

    async def file(self) -> str:
        return (await self.files.create("a.jsonl", "batch", one(b"{}"))).id

    def age(self, days: float, part: str = "") -> None:
        """Everything whose path holds `part` is so much older from now on."""
        for path in self.folder.rglob("*"):
            if path.is_file() and part in str(path):
                written = path.stat().st_mtime - days * DAY
                os.utime(path, (written, written))

    async def keys(self) -> set[str]:
        return {info.key async for info in self.store.list("")}


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path / "store")


async def test_what_is_old_and_over_goes_and_all_else_stays(kept: Kept) -> None:
    old, running, old_file = await kept.job(ended=True), await kept.job(ended=False), await kept.file()
    kept.age(91)
    fresh, fresh_file = await kept.job(ended=True), await kept.file()
    before = await kept.keys()
    assert await kept.sweeper(0).sweep() == Swept()
    assert await kept.sweeper(92).sweep() == Swept()
    assert await kept.keys() == before
    assert await kept.sweeper().sweep() == Swept(jobs=1, files=1)
    assert await kept.jobs.all() == [running, fresh]
    assert await kept.files.ids() == [fresh_file]
    assert not {key for key in await kept.keys() if old in key or old_file in key}
    with pytest.raises(NotFound):
        await kept.jobs.view(old)
    assert await kept.sweeper().sweep() == Swept()


async def test_what_dead_processes_left_goes_after_a_while(kept: Kept) -> None:
    whole = await kept.job(ended=False)
    before = await kept.keys()
    await kept.jobs.put_input("job_never", 0, [b"{}"])
    await kept.jobs.put_result("job_deleted", 3, b'{"requests": 0, "errors": []}')
    await kept.jobs.end("job_deleted", End(State.COMPLETED.value, 0, 0, 0))
    await kept.store.put("files/content/file_never", one(b"half"))
    days = ORPHAN_SECONDS / DAY
    kept.age(days / 2)
    assert await kept.sweeper().sweep() == Swept()
    kept.age(days)
    # Somebody is still submitting this one: its last chunk came just now.
    await kept.jobs.put_input("job_coming", 0, [b"{}"])
    kept.age(2 * days, "job_coming")
    await kept.jobs.put_input("job_coming", 1, [b"{}"])
    assert await kept.sweeper().sweep() == Swept(orphans=3)
    assert await kept.keys() == before | {"jobs/inputs/job_coming/00000000", "jobs/inputs/job_coming/00000001"}
    assert await kept.jobs.all() == [whole]


async def test_a_process_that_is_not_the_active_one_removes_nothing(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.jobs.retention.SWEEP_SECONDS", 0.01)
    await kept.job(ended=True)
    kept.age(91)
    active, asked = False, asyncio.Event()

    def is_active() -> bool:
        asked.set()
        return active

    sweeping = asyncio.create_task(Sweeper(kept.store, kept.jobs, kept.files, DAY, is_active).run())
    await asyncio.wait_for(asked.wait(), 30)
    assert len(await kept.jobs.all()) == 1
    active = True
    async with asyncio.timeout(30):
        while await kept.jobs.all():  # noqa: ASYNC110  # the store tells nobody
            await asyncio.sleep(0.02)
    sweeping.cancel()
    await asyncio.gather(sweeping, return_exceptions=True)
