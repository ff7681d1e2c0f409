"""What is kept of jobs and files, and for how long: by the active process, once an hour.

Ended jobs and uploaded files go when their time is up. So do orphans: what a process that died left of a job that was
never submitted or only half deleted, or of an upload that was never whole. Ages go by the store's own clock.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from services.common.errors import HeadraceError, NotFound
from services.common.objects.connect import clock_of
from services.common.objects.port import ObjectStore
from services.jobs.files import CONTENT, INFO, FileStore
from services.jobs.store import CANCELLED, ENDS, INPUTS, RESULTS, SPECS, JobStore

log = logging.getLogger(__name__)

SWEEP_SECONDS = 3600.0
# Nothing is written for so long of a job that is still to be submitted, nor of a file: see MOST_SUBMIT_SECONDS.
ORPHAN_SECONDS = 2 * 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Swept:
    """How many of each were removed."""

    jobs: int = 0
    files: int = 0
    orphans: int = 0


class Sweeper:
    """Removes what nobody is to find any more.

    Args:
        keep_seconds: how long ended jobs and uploaded files stay; 0: until somebody deletes them.
        active: whether this process is the one that acts.
    """

    def __init__(
        self, store: ObjectStore, jobs: JobStore, files: FileStore, keep_seconds: float, active: Callable[[], bool]
    ) -> None:
        self._store = store
        self._jobs = jobs
        self._files = files
        self._keep_seconds = keep_seconds
        self._active = active

    async def run(self) -> None:
        """For ever; a store that is away is left to the next time."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            if self._active():
                try:
                    swept = await self.sweep()
                except HeadraceError as error:
                    log.warning("old jobs are not removed now: %s", error)
                else:
                    log.info("removed %d old jobs, %d old files, %d orphans", swept.jobs, swept.files, swept.orphans)

    async def sweep(self) -> Swept:
        """Once. Raises Unavailable."""
        now = await clock_of(self._store)
        jobs = [] if not self._keep_seconds else await self._older_than(now - self._keep_seconds, ENDS)
        files = [] if not self._keep_seconds else await self._older_than(now - self._keep_seconds, INFO)
        gone_jobs = sum([await self._removed(self._jobs.delete, name) for name in jobs])
        gone_files = sum([await self._removed(self._files.delete, name) for name in files])
        orphans = await self._remove_orphans([INPUTS, RESULTS, CANCELLED, ENDS], SPECS, now - ORPHAN_SECONDS)
        orphans += await self._remove_orphans([CONTENT], INFO, now - ORPHAN_SECONDS)
        return Swept(jobs=gone_jobs, files=gone_files, orphans=orphans)

    async def _older_than(self, moment: float, prefix: str) -> list[str]:
        return [info.key.removeprefix(prefix) async for info in self._store.list(prefix) if info.written < moment]

    async def _removed(self, delete: Callable[[str], Awaitable[None]], name: str) -> bool:
        try:
            await delete(name)
        except NotFound:  # somebody else was first, or it is an orphan
            return False
        return True

    async def _remove_orphans(self, prefixes: list[str], owners: str, moment: float) -> int:
        """What belongs to nothing below `owners` and of which nothing was written since. Returns how many they were.

        What is owned is listed before who owns it: who is there by then, whatever came in between, is known.
        """
        keys: dict[str, list[str]] = {}
        written: dict[str, float] = {}
        for prefix in prefixes:
            async for info in self._store.list(prefix):
                owner = info.key.removeprefix(prefix).partition("/")[0]
                keys.setdefault(owner, []).append(info.key)
                written[owner] = max(written.get(owner, 0.0), info.written)
        known = {info.key.removeprefix(owners) async for info in self._store.list(owners)}
        orphans = [owner for owner in keys.keys() - known if written[owner] < moment]
        for owner in orphans:
            for key in keys[owner]:
                await self._store.delete(key)
        return len(orphans)
