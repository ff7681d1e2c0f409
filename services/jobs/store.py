"""Jobs in the object store: the only state there is.

    jobs/specs/ID         what was submitted; written last, once every chunk is there: from then on the job exists
    jobs/inputs/ID/N      the requests of chunk N
    jobs/results/ID/N     its results, written once
    jobs/cancelled/ID     when it was cancelled
    jobs/ends/ID          how it ended; written once, after the last result

Every object is written once and never changed, so it makes no difference who reads or writes it, or how often.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing
from dataclasses import asdict

from services.common.errors import AlreadyExists, Conflict, FailedPrecondition, InvalidArgument, NotFound
from services.common.objects.connect import one, whole
from services.common.objects.port import ObjectStore
from services.jobs.chunks import Counts, Kind, counts, select
from services.jobs.job import End, Spec, View
from services.jobs.lines import Request

SPECS, INPUTS, RESULTS, CANCELLED, ENDS = (
    f"jobs/{name}/" for name in ("specs", "inputs", "results", "cancelled", "ends")
)


# At a time, where many chunks are to be counted.
MOST_READS = 16


class JobStore:
    """All methods raise Unavailable while the store cannot be reached."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        # Of the chunks of jobs that run: results never change, so they are counted once.
        self._counts: dict[str, dict[int, Counts]] = {}
        self._owners: dict[str, str] = {}

    async def put_input(self, job: str, number: int, lines: Iterable[bytes]) -> None:
        """Keeps one chunk of a job that is being submitted."""
        await self._store.put(_chunk(INPUTS, job, number), one(b"\n".join(lines)))

    async def submit(self, spec: Spec) -> None:
        """The job exists from now on."""
        await self._store.put(SPECS + spec.id, one(json.dumps(asdict(spec)).encode()), if_absent=True)

    async def abandon(self, job: str) -> None:
        """Removes what was kept of a job that was never submitted."""
        await self._delete_below(f"{INPUTS}{job}/")

    async def unfinished(self) -> list[str]:
        """Jobs that have not ended, oldest first."""
        ended = {name async for name in self._names(ENDS)}
        return [name async for name in self._names(SPECS) if name not in ended]

    async def all(self) -> list[str]:
        """Every job, oldest first."""
        return [name async for name in self._names(SPECS)]

    async def spec(self, job: str) -> Spec:
        """Raises NotFound."""
        try:
            return Spec(**json.loads(await whole(self._store, SPECS + _named(job))))
        except NotFound as error:
            raise unknown(job) from error
        except (ValueError, TypeError) as error:
            raise InvalidArgument(f"object '{SPECS}{job}' cannot be read ({error}); delete it") from error

    async def owner(self, job: str) -> str:
        """The tenant whose it is; it never changes. Raises NotFound."""
        if job not in self._owners:
            self._owners[job] = (await self.spec(job)).tenant
        return self._owners[job]

    async def view(self, job: str) -> View:
        """The job as it is now. Raises NotFound."""
        spec, end, cancelled = await self.spec(job), await self.end_of(job), await self.cancelled(job)
        if end is not None:
            self._counts.pop(job, None)
            return View(spec, Counts(end.completed, end.failed), cancelled, end)
        return View(spec, await self.progress(job), cancelled)

    async def input(self, job: str, number: int) -> list[Request]:
        """The requests of one chunk."""
        kept = await whole(self._store, _chunk(INPUTS, job, number))
        return [Request.kept(line) for line in kept.split(b"\n")]

    async def done(self, job: str) -> set[int]:
        """The chunks whose results are written."""
        return {int(name) async for name in self._names(f"{RESULTS}{job}/")}

    async def put_result(self, job: str, number: int, packed: bytes) -> bool:
        """Keeps a chunk's results, unless somebody was first: whether this was."""
        first = await self._put_once(_chunk(RESULTS, job, number), packed)
        if first:
            self._counts.setdefault(job, {})[number] = counts(packed)
        return first

    async def progress(self, job: str) -> Counts:
        """Over all chunks that are done."""
        known, reads = self._counts.setdefault(job, {}), asyncio.Semaphore(MOST_READS)

        async def count(number: int) -> None:
            async with reads:
                known[number] = counts(await self._first_line(_chunk(RESULTS, job, number)))

        await asyncio.gather(*(count(number) for number in await self.done(job) - known.keys()))
        return sum(known.values(), Counts())

    async def results(self, spec: Spec, kind: Kind) -> AsyncIterator[bytes]:
        """Lines in the order of the requests, chunk by chunk; chunks that are not done are left out."""
        for number in sorted(await self.done(spec.id)):
            if chosen := select(await whole(self._store, _chunk(RESULTS, spec.id, number)), kind):
                yield chosen

    async def cancel(self, job: str, at_ms: int) -> None:
        """Whoever runs it will stop."""
        await self._put_once(CANCELLED + _named(job), b"%d" % at_ms)

    async def cancelled(self, job: str) -> int | None:
        """When it was cancelled; None: it was not."""
        try:
            return int(await whole(self._store, CANCELLED + job))
        except NotFound:
            return None

    async def end(self, job: str, end: End) -> None:
        """It has ended, unless somebody has said so before."""
        await self._put_once(ENDS + job, json.dumps(asdict(end)).encode())
        self._counts.pop(job, None)

    async def end_of(self, job: str) -> End | None:
        """How it ended; None: it has not."""
        try:
            return End(**json.loads(await whole(self._store, ENDS + job)))
        except NotFound:
            return None

    async def delete(self, job: str) -> None:
        """Removes a job that has ended; may be done again where it broke off. Raises NotFound, FailedPrecondition."""
        await self.spec(job)
        if await self.end_of(job) is None:
            raise FailedPrecondition(f"job '{job}' has not ended; cancel it first")
        await self._delete_below(f"{INPUTS}{job}/")
        await self._delete_below(f"{RESULTS}{job}/")
        # Its end last: a job without one would be run again.
        for key in (CANCELLED + job, SPECS + job, ENDS + job):
            await self._store.delete(key)
        self._owners.pop(job, None)

    async def _names(self, prefix: str) -> AsyncIterator[str]:
        async for info in self._store.list(prefix):
            yield info.key.removeprefix(prefix)

    async def _put_once(self, key: str, content: bytes) -> bool:
        """Whether this was the first to write it."""
        try:
            await self._store.put(key, one(content), if_absent=True)
        except (AlreadyExists, Conflict):
            return False
        return True

    async def _first_line(self, key: str) -> bytes:
        begun = b""
        async with aclosing(self._store.get(key)) as pieces:  # type: ignore[type-var]  # both adapters are generators
            async for piece in pieces:
                begun += piece
                if b"\n" in piece:
                    break
        return begun

    async def _delete_below(self, prefix: str) -> None:
        for name in [name async for name in self._names(prefix)]:
            await self._store.delete(prefix + name)


def _chunk(prefix: str, job: str, number: int) -> str:
    """Digits enough to sort as numbers do."""
    return f"{prefix}{job}/{number:08d}"


def unknown(job: str) -> NotFound:
    """What is said of a job that is not there, or not for the caller."""
    return NotFound(f"no job '{job[:128]}'; `headrace job list` shows what there is")


def _named(job: str) -> str:
    """The id, if it could be one: what clients say becomes part of a key. Raises NotFound."""
    if not job or not job.replace("_", "").isalnum() or not job.isascii():
        raise unknown(job)
    return job
