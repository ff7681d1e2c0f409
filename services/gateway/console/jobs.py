"""The console's jobs: whether there is a job service, and what `headrace job list` would show to whoever asks."""

from typing import Any

from fastapi import APIRouter, Request

from headrace.v1.jobs_pb2 import ListJobsRequest
from services.gateway.console.plain import plain
from services.gateway.openai.jobs import Jobs

MOST = 100
LIST_SECONDS = 30.0


class Presence:
    """Compose names gateways a job service that need not run: one that has never answered is none."""

    def __init__(self, jobs: Jobs | None, address: str) -> None:
        self._jobs = jobs
        self._address = address
        self._seen = False

    async def look(self) -> dict[str, Any] | None:
        """Its `address`, and whether it is `up`; None: there is none."""
        if self._jobs is None:
            return None
        up = await self._jobs.up()
        self._seen = self._seen or up
        return {"address": self._address, "up": up} if self._seen else None


def jobs_router(jobs: Jobs | None) -> APIRouter:
    """`/console/jobs?limit=N&after=ID`: a ListJobsResponse in protobuf's JSON form, asked for with the caller's key.

    Without a job service there is no such page.
    """
    router = APIRouter(include_in_schema=False)
    if jobs is None:
        return router

    @router.get("/console/jobs")
    async def listed(http: Request, limit: int = 0, after: str = "") -> dict[str, Any]:
        request = ListJobsRequest(limit=min(max(0, limit), MOST), after=after)
        return plain(await jobs.ask(http, jobs.jobs.ListJobs, request, LIST_SECONDS))

    return router
