"""Tells the registry's process what this worker holds and does: each second, at once when a model's state changes."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from grpc import aio

from headrace.v1.fleet_pb2 import ReportWorkerRequest, Worker
from headrace.v1.fleet_pb2_grpc import FleetServiceStub
from services.common.reports import REPORT_SECONDS, report_for_ever


async def report(channel: aio.Channel, describe: Callable[[], Worker], changed: asyncio.Event) -> None:
    """Reports for ever; a registry that is away is tried again. `changed` makes it report at once."""
    stub = FleetServiceStub(channel)

    async def reports() -> AsyncIterator[ReportWorkerRequest]:
        while True:
            changed.clear()
            yield ReportWorkerRequest(worker=describe())
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), REPORT_SECONDS)

    await report_for_ever(stub.ReportWorker, reports)
