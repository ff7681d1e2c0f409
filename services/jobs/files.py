"""Uploaded files in the object store, and jobs' results seen as files: what OpenAI's clients work with.

files/info/ID       name, purpose, size; written last: from then on the file exists
files/content/ID    its bytes
"""

import json
import time
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass

from services.common.errors import HeadraceError, InvalidArgument, NotFound
from services.common.objects.connect import one, whole
from services.common.objects.port import ObjectStore
from services.common.tenants.tenant import Tenant
from services.jobs.chunks import Kind
from services.jobs.door import may_see, sees_all
from services.jobs.job import View
from services.jobs.store import JobStore
from services.jobs.submission import new_id

INFO, CONTENT = "files/info/", "files/content/"
PURPOSE = "batch"
_KINDS = {"output": Kind.OUTPUT, "errors": Kind.ERRORS}


@dataclass(frozen=True, slots=True)
class FileInfo:
    """One file; created in milliseconds since the epoch; whose it is, empty where no keys are asked for."""

    id: str
    filename: str
    purpose: str
    bytes: int
    created_ms: int
    tenant: str = ""


def results_file(job: str, kind: Kind) -> str:
    """The id under which a job's results are read as a file."""
    return f"file_{job}_{kind.value}"


class FileStore:
    """All methods raise Unavailable while the store cannot be reached, and NotFound where there is no such file."""

    def __init__(self, store: ObjectStore, jobs: JobStore) -> None:
        self._store = store
        self._jobs = jobs
        self._owners: dict[str, str] = {}

    async def create(self, filename: str, purpose: str, content: AsyncIterator[bytes], tenant: str = "") -> FileInfo:
        """Keeps an upload. Raises InvalidArgument."""
        if purpose != PURPOSE:
            raise InvalidArgument(f"purpose is {purpose!r}; files are taken for 'batch' only")
        created = time.time_ns() // 1_000_000
        name = new_id("file", created)
        try:
            kept = await self._store.put(CONTENT + name, content)
        except HeadraceError:
            await self._store.delete(CONTENT + name)
            raise
        info = FileInfo(name, filename, purpose, kept.size, created, tenant)
        await self._store.put(INFO + name, one(json.dumps(asdict(info)).encode()), if_absent=True)
        return info

    async def info(self, name: str) -> FileInfo:
        """What is known of a file."""
        if (found := await self._results(name)) is not None:
            view, kind = found
            size = sum([len(piece) async for piece in self._jobs.results(view.spec, kind)])
            created = view.end.at_ms if view.end is not None else view.spec.created_ms
            return FileInfo(name, f"{view.spec.id}_{kind.value}.jsonl", "batch_output", size, created, view.spec.tenant)
        try:
            return FileInfo(**json.loads(await whole(self._store, INFO + _checked(name))))
        except NotFound as error:
            raise _unknown(name) from error

    async def content(self, name: str) -> AsyncIterator[bytes]:
        """Its bytes, in pieces."""
        if (found := await self._results(name)) is not None:
            view, kind = found
            async for piece in self._jobs.results(view.spec, kind):
                yield piece
            return
        await self.info(name)
        async for piece in self._store.get(CONTENT + name):
            yield piece

    async def ids(self, caller: Tenant | None = None) -> list[str]:
        """Of uploads that the caller may see, oldest first; None: everything."""
        ids = [info.key.removeprefix(INFO) async for info in self._store.list(INFO)]
        return [name for name in ids if sees_all(caller) or await self._is_his(name, caller)]

    async def check(self, name: str, caller: Tenant | None) -> None:
        """Raises NotFound where there is no such file for the caller."""
        if not sees_all(caller) and not await self._is_his(name, caller):
            raise _unknown(name)

    async def _is_his(self, name: str, caller: Tenant | None) -> bool:
        try:
            if name not in self._owners:
                job = _job_of(name)
                self._owners[name] = await self._jobs.owner(job) if job else (await self.info(name)).tenant
        except NotFound:
            return False
        return may_see(caller, self._owners[name])

    async def delete(self, name: str) -> None:
        """Removes an upload. Raises InvalidArgument for results, which go with their job."""
        if await self._results(name) is not None:
            raise InvalidArgument(f"'{name}' holds results of a job; it goes with the job: `headrace job delete`")
        await self.info(name)
        self._owners.pop(name, None)
        await self._store.delete(INFO + name)
        await self._store.delete(CONTENT + name)

    async def _results(self, name: str) -> tuple[View, Kind] | None:
        """The job and the kind of results that the id stands for; None: it is no such id."""
        if not (job := _job_of(name)):
            return None
        try:
            return await self._jobs.view(job), _KINDS[name.rpartition("_")[2]]
        except NotFound as error:
            raise _unknown(name) from error


def _job_of(name: str) -> str:
    """The job whose results the id stands for; empty: it is no such id."""
    job, _, kind = name.removeprefix("file_").rpartition("_")
    return job if name.startswith("file_job_") and kind in _KINDS else ""


def _checked(name: str) -> str:
    """The id, if it could be one: what clients say becomes part of a key."""
    if not name or not name.replace("_", "").isalnum() or not name.isascii():
        raise _unknown(name)
    return name


def _unknown(name: str) -> NotFound:
    return NotFound(f"no file '{name[:128]}'")
