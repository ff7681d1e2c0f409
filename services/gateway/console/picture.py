"""What a gateway's console shows: its own status, the autoscaler's, and whether there are jobs."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc

from headrace.v1.autoscaler_pb2 import GetScalingRequest
from headrace.v1.autoscaler_pb2_grpc import AutoscalerServiceStub
from headrace.v1.gateway_pb2 import GetStatusRequest
from services.common.rpc import channel
from services.common.tls import Tls
from services.gateway.calls import Call
from services.gateway.console.jobs import Presence
from services.gateway.console.live import WINDOW_SECONDS, Live
from services.gateway.console.plain import plain
from services.gateway.status import SERVICE, StatusService

if TYPE_CHECKING:
    from headrace.v1.autoscaler_pb2_grpc import AutoscalerServiceAsyncStub

AUTOSCALER_SECONDS = 1.0


class Picture:
    """Taken by `look`.

    Args:
        address: the autoscaler's, "" where there is none.
        autoscaler: None where there is none.
    """

    def __init__(
        self, status: StatusService, jobs: Presence, address: str, autoscaler: "AutoscalerServiceAsyncStub | None"
    ) -> None:
        self._status = status
        self._address = address
        self._autoscaler = autoscaler
        self._jobs = jobs

    async def look(self) -> dict[str, Any]:
        """`status`; `autoscaler` and `jobs`, null where this gateway knows of none; `replica` is null: this is none.

        `status` is a GetStatusResponse in protobuf's JSON form (whole numbers of 64 bits are strings there);
        `autoscaler` has its `address` and its `state`: null where it does not answer, or a GetScalingResponse. `jobs`
        says whether the job service is up; the page asks for the jobs themselves, with its own key.
        """
        request = GetStatusRequest(window_seconds=WINDOW_SECONDS)
        status, scaling, jobs = await asyncio.gather(
            self._status.get_status(Call(f"/{SERVICE}/GetStatus", {}), request), self._scaling(), self._jobs.look()
        )
        return {"status": plain(status), "autoscaler": scaling, "jobs": jobs, "replica": None}

    async def _scaling(self) -> dict[str, Any] | None:
        if self._autoscaler is None:
            return None
        try:
            state = await self._autoscaler.GetScaling(GetScalingRequest(), timeout=AUTOSCALER_SECONDS)
        except grpc.RpcError:
            return {"address": self._address, "state": None}
        return {"address": self._address, "state": plain(state)}


@asynccontextmanager
async def live(status: StatusService, jobs: Presence, autoscaler: str, tls: Tls | None) -> AsyncIterator[Live]:
    """A gateway's feed; `autoscaler`: its host:port, or ""."""
    async with AsyncExitStack() as stack:
        stub = None
        if autoscaler:
            stub = AutoscalerServiceStub(await stack.enter_async_context(channel(autoscaler, tls)))
        feed = Live(Picture(status, jobs, autoscaler, stub).look)
        stack.push_async_callback(feed.close)
        yield feed
