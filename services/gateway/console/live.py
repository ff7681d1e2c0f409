"""What the console shows, once a second, as server-sent events."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from headrace.v1.autoscaler_pb2 import GetScalingRequest
from headrace.v1.autoscaler_pb2_grpc import AutoscalerServiceStub
from headrace.v1.gateway_pb2 import GetStatusRequest
from services.common.rpc import channel
from services.common.tls import Tls
from services.gateway.calls import Call
from services.gateway.status import SERVICE, StatusService

if TYPE_CHECKING:
    from headrace.v1.autoscaler_pb2_grpc import AutoscalerServiceAsyncStub

PERIOD_SECONDS = 1.0
# A look at many models takes a while: no more than this share of the time goes into looking.
MOST_OF_THE_TIME = 0.1
# Latencies are those of so many seconds: long enough for percentiles, short enough to see them move.
WINDOW_SECONDS = 5.0
AUTOSCALER_SECONDS = 1.0


class Live:
    """Looks once a second while somebody watches, however many do.

    Args:
        address: the autoscaler's, "" where there is none.
        autoscaler: None where there is none.
    """

    def __init__(self, status: StatusService, address: str, autoscaler: "AutoscalerServiceAsyncStub | None") -> None:
        self._status = status
        self._address = address
        self._autoscaler = autoscaler
        self._looking = asyncio.Lock()
        self._due = 0.0
        self._latest = b""

    async def events(self) -> AsyncGenerator[bytes, None]:
        """The picture now, then again and again: `data: {"unix_ms", "window_seconds", "status", "autoscaler"}`.

        `status` is a GetStatusResponse in protobuf's JSON form (whole numbers of 64 bits are strings there);
        `autoscaler` is null, or has its `address` and its `state`: null, or a GetScalingResponse.
        """
        loop = asyncio.get_running_loop()
        while True:
            async with self._looking:
                began = loop.time()
                if began >= self._due:
                    self._latest = await self._look()
                    self._due = began + max(PERIOD_SECONDS, (loop.time() - began) / MOST_OF_THE_TIME)
            yield self._latest
            await asyncio.sleep(self._due - loop.time())

    async def _look(self) -> bytes:
        request = GetStatusRequest(window_seconds=WINDOW_SECONDS)
        status, scaling = await asyncio.gather(
            self._status.get_status(Call(f"/{SERVICE}/GetStatus", {}), request), self._scaling()
        )
        picture = {
            "unix_ms": time.time_ns() // 1_000_000,
            "window_seconds": WINDOW_SECONDS,
            "status": _plain(status),
            "autoscaler": scaling,
        }
        return b"data: " + json.dumps(picture, separators=(",", ":")).encode() + b"\n\n"

    async def _scaling(self) -> dict[str, Any] | None:
        if self._autoscaler is None:
            return None
        try:
            state = await self._autoscaler.GetScaling(GetScalingRequest(), timeout=AUTOSCALER_SECONDS)
        except grpc.RpcError:
            return {"address": self._address, "state": None}
        return {"address": self._address, "state": _plain(state)}


@asynccontextmanager
async def live(status: StatusService, autoscaler: str, tls: Tls | None) -> AsyncIterator[Live]:
    """The feed; `autoscaler`: its host:port, or ""."""
    async with AsyncExitStack() as stack:
        stub = None
        if autoscaler:
            stub = AutoscalerServiceStub(await stack.enter_async_context(channel(autoscaler, tls)))
        yield Live(status, autoscaler, stub)


def _plain(message: Message) -> dict[str, Any]:
    return MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
