"""JobService over the store. Every replica answers; only the active one runs jobs."""

import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from headrace.v1 import jobs_pb2 as pb
from headrace.v1.jobs_pb2_grpc import JobServiceServicer
from services.common.errors import NotFound
from services.common.tenants.tenant import Tenant
from services.jobs.chunks import Kind
from services.jobs.door import Door, may_see, owner_of, sees_all
from services.jobs.files import FileStore, results_file
from services.jobs.job import State, View
from services.jobs.paging import page
from services.jobs.store import JobStore, unknown
from services.jobs.submission import submit
from services.jobs.uploads import content_of, first_part
from services.jobs.watching import watch

DEFAULT_PAGE, MOST_IN_PAGE = 20, 100
_STATES = {
    State.RUNNING: pb.JOB_STATE_RUNNING,
    State.CANCELLING: pb.JOB_STATE_CANCELLING,
    State.COMPLETED: pb.JOB_STATE_COMPLETED,
    State.CANCELLED: pb.JOB_STATE_CANCELLED,
    State.EXPIRED: pb.JOB_STATE_EXPIRED,
}
_KINDS = {
    pb.RESULT_KIND_UNSPECIFIED: Kind.ALL,
    pb.RESULT_KIND_OUTPUT: Kind.OUTPUT,
    pb.RESULT_KIND_ERRORS: Kind.ERRORS,
}


class JobServer(JobServiceServicer):
    """Implements JobService.

    Args:
        news: called when there is something new for who runs jobs.
    """

    def __init__(self, jobs: JobStore, files: FileStore, door: Door, news: Callable[[], None]) -> None:
        self._jobs = jobs
        self._door = door
        self._files = files
        self._news = news

    async def SubmitJob(self, requests: AsyncIterator[pb.SubmitJobRequest], context: Any) -> pb.SubmitJobResponse:
        """A file, in pieces, or the name of one that was uploaded."""
        header, caller = (await first_part(requests)).header, self._door.caller(context)
        if header.input_file:
            await self._files.check(header.input_file, caller)
        content = self._files.content(header.input_file) if header.input_file else content_of(requests)
        spec = await submit(
            self._jobs,
            content,
            endpoint=header.endpoint,
            input_file=header.input_file,
            metadata=dict(header.metadata),
            window_seconds=header.window_seconds,
            tenant=owner_of(caller),
        )
        self._news()
        return pb.SubmitJobResponse(job=_job(await self._jobs.view(spec.id)))

    async def GetJob(self, request: pb.GetJobRequest, context: Any) -> pb.GetJobResponse:
        """Where it stands."""
        await self._check(request.id, context)
        return pb.GetJobResponse(job=_job(await self._jobs.view(request.id)))

    async def WatchJob(self, request: pb.WatchJobRequest, context: Any) -> AsyncIterator[pb.WatchJobResponse]:
        """Each change, until it has ended."""
        await self._check(request.id, context)
        async for view in watch(self._jobs, request.id):
            yield pb.WatchJobResponse(job=_job(view))

    async def ListJobs(self, request: pb.ListJobsRequest, context: Any) -> pb.ListJobsResponse:
        """Newest first."""
        limit = min(request.limit or DEFAULT_PAGE, MOST_IN_PAGE)
        caller = self._door.caller(context)
        seen = [job for job in await self._jobs.all() if sees_all(caller) or await self._is_his(job, caller)]
        ids, more = page(seen, limit, request.after)
        return pb.ListJobsResponse(jobs=[_job(await self._jobs.view(job)) for job in ids], has_more=more)

    async def CancelJob(self, request: pb.CancelJobRequest, context: Any) -> pb.CancelJobResponse:
        """Its requests that are not answered fail."""
        await self._check(request.id, context)
        if (await self._jobs.view(request.id)).end is None:
            await self._jobs.cancel(request.id, time.time_ns() // 1_000_000)
            self._news()
        return pb.CancelJobResponse(job=_job(await self._jobs.view(request.id)))

    async def DeleteJob(self, request: pb.DeleteJobRequest, context: Any) -> pb.DeleteJobResponse:
        """With its results."""
        await self._check(request.id, context)
        await self._jobs.delete(request.id)
        return pb.DeleteJobResponse()

    async def ReadResults(self, request: pb.ReadResultsRequest, context: Any) -> AsyncIterator[pb.ReadResultsResponse]:
        """So far."""
        await self._check(request.id, context)
        spec = await self._jobs.spec(request.id)
        async for content in self._jobs.results(spec, _KINDS[request.kind]):
            yield pb.ReadResultsResponse(content=content)

    async def _check(self, job: str, context: Any) -> None:
        """Raises NotFound where there is no such job for the caller."""
        if not await self._is_his(job, self._door.caller(context)):
            raise unknown(job)

    async def _is_his(self, job: str, caller: Tenant | None) -> bool:
        try:
            return may_see(caller, await self._jobs.owner(job))
        except NotFound:  # deleted since it was listed
            return False


def _job(view: View) -> pb.Job:
    spec, end = view.spec, view.end
    return pb.Job(
        id=spec.id,
        state=_STATES[view.state],
        endpoint=spec.endpoint,
        input_file=spec.input_file,
        metadata=spec.metadata,
        total=spec.requests,
        completed=view.counts.completed,
        failed=view.counts.failed,
        created_unix_ms=spec.created_ms,
        expires_unix_ms=spec.expires_ms,
        cancelled_unix_ms=view.cancelled_ms or 0,
        ended_unix_ms=end.at_ms if end is not None else 0,
        window_seconds=spec.window_seconds,
        output_file=results_file(spec.id, Kind.OUTPUT) if end is not None and end.completed else "",
        error_file=results_file(spec.id, Kind.ERRORS) if end is not None and end.failed else "",
        tenant=spec.tenant,
        models=spec.models,
    )
