"""/v1/batches: jobs as OpenAI's clients know them."""

import re
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Request

from headrace.v1 import jobs_pb2 as pb
from services.common.errors import InvalidArgument
from services.gateway.openai.jobs import Jobs, there
from services.gateway.openai.schemas import Part

_WINDOW = re.compile(r"(\d{1,6})([smhd])")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_STATES = {
    pb.JOB_STATE_RUNNING: "in_progress",
    pb.JOB_STATE_CANCELLING: "cancelling",
    pb.JOB_STATE_COMPLETED: "completed",
    pb.JOB_STATE_CANCELLED: "cancelled",
    pb.JOB_STATE_EXPIRED: "expired",
}


class BatchRequest(Part):
    """POST /v1/batches."""

    input_file_id: str
    endpoint: str
    completion_window: str = "24h"
    metadata: dict[str, str] | None = None


def batches_router(jobs: Jobs | None) -> APIRouter:
    """The endpoints over the job service."""
    router = APIRouter(prefix="/v1/batches", tags=["openai"])

    @router.post("")
    async def create(asked: BatchRequest, http: Request) -> dict[str, Any]:
        """Begins a batch of an uploaded file; a line that is wrong refuses it."""
        service = there(jobs)
        header = pb.SubmitJobRequest.Header(
            endpoint=asked.endpoint,
            input_file=asked.input_file_id,
            metadata=asked.metadata,
            window_seconds=window_seconds(asked.completion_window),
        )
        return _batch((await service.ask(http, service.jobs.SubmitJob, _only(header))).job)

    @router.get("")
    async def batches(http: Request, limit: int = 20, after: str = "") -> dict[str, Any]:
        """Newest first."""
        service = there(jobs)
        page = await service.ask(http, service.jobs.ListJobs, pb.ListJobsRequest(limit=max(0, limit), after=after))
        data = [_batch(job) for job in page.jobs]
        ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {}
        return {"object": "list", "data": data, "has_more": page.has_more, **ends}

    @router.get("/{name}")
    async def batch(name: str, http: Request) -> dict[str, Any]:
        """Where it stands."""
        service = there(jobs)
        return _batch((await service.ask(http, service.jobs.GetJob, pb.GetJobRequest(id=name))).job)

    @router.post("/{name}/cancel")
    async def cancel(name: str, http: Request) -> dict[str, Any]:
        """Gives up what is not answered yet."""
        service = there(jobs)
        return _batch((await service.ask(http, service.jobs.CancelJob, pb.CancelJobRequest(id=name))).job)

    return router


def window_seconds(window: str) -> int:
    """ "24h" → 86400. Raises InvalidArgument."""
    match = _WINDOW.fullmatch(window)
    if match is None or not int(match[1]):
        raise InvalidArgument(f"completion_window is {window[:40]!r}; expected a time such as '24h' or '30m'")
    return int(match[1]) * _UNITS[match[2]]


def window_text(seconds: int) -> str:
    """The way back, in the largest unit of hours, minutes and seconds that fits."""
    unit = next(unit for unit in "hms" if seconds % _UNITS[unit] == 0)
    return f"{seconds // _UNITS[unit]}{unit}"


async def _only(header: pb.SubmitJobRequest.Header) -> AsyncIterator[pb.SubmitJobRequest]:
    yield pb.SubmitJobRequest(header=header)


def _batch(job: pb.Job) -> dict[str, Any]:
    state, ended = _STATES[job.state], _seconds(job.ended_unix_ms)
    return {
        "id": job.id,
        "object": "batch",
        "endpoint": job.endpoint,
        "errors": None,
        "input_file_id": job.input_file,
        "completion_window": window_text(job.window_seconds),
        "status": state,
        "output_file_id": job.output_file or None,
        "error_file_id": job.error_file or None,
        "created_at": job.created_unix_ms // 1000,
        "in_progress_at": job.created_unix_ms // 1000,
        "expires_at": job.expires_unix_ms // 1000,
        "finalizing_at": ended,
        "completed_at": ended if state == "completed" else None,
        "failed_at": None,
        "expired_at": ended if state == "expired" else None,
        "cancelling_at": _seconds(job.cancelled_unix_ms),
        "cancelled_at": ended if state == "cancelled" else None,
        "request_counts": {"total": job.total, "completed": job.completed, "failed": job.failed},
        "metadata": dict(job.metadata) or None,
    }


def _seconds(unix_ms: int) -> int | None:
    return unix_ms // 1000 if unix_ms else None
