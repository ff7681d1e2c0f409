"""Tells the registry's process what callers want: each second, and at once when a request finds no worker."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

from grpc import aio

from headrace.v1.fleet_pb2 import Gateway, ReportGatewayRequest
from headrace.v1.fleet_pb2_grpc import FleetServiceStub
from services.common.reports import REPORT_SECONDS, report_for_ever
from services.gateway.dispatch.pending import PendingTable

# At most so often, however many requests find no worker.
PAUSE_SECONDS = 0.05


async def report_demand(channel: aio.Channel, gateway_id: str, pending: PendingTable, unserved: asyncio.Event) -> None:
    """Reports for ever; a registry that is away is tried again.

    Args:
        unserved: set when a request was admitted whose queue nobody consumes: somebody must be woken.
    """
    stub = FleetServiceStub(channel)

    async def reports() -> AsyncIterator[ReportGatewayRequest]:
        while True:
            unserved.clear()
            yield ReportGatewayRequest(gateway=Gateway(id=gateway_id, queues=pending.demand(time.time_ns() // 1000)))
            await asyncio.sleep(PAUSE_SECONDS)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(unserved.wait(), REPORT_SECONDS)

    await report_for_ever(stub.ReportGateway, reports)
