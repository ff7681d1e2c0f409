"""Tells the registry's process what of the jobs is still to be sent: the autoscaler sees it there."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

from grpc import aio

from headrace.v1.fleet_pb2 import Backlog, ReportBacklogRequest
from headrace.v1.fleet_pb2_grpc import FleetServiceStub
from services.common.reports import REPORT_SECONDS, report_for_ever
from services.jobs.job import Target


async def report_backlog(channel: aio.Channel, name: str, waiting: Callable[[], Mapping[Target, int]]) -> None:
    """Reports for ever; a registry that is away is tried again.

    Args:
        name: of this process.
        waiting: how many requests there are for each model.
    """
    stub = FleetServiceStub(channel)

    async def reports() -> AsyncIterator[ReportBacklogRequest]:
        while True:
            report = Backlog(id=name)
            for target, requests in waiting().items():
                report.waiting.add(name=target.model, version=target.version, requests=requests)
            yield ReportBacklogRequest(backlog=report)
            await asyncio.sleep(REPORT_SECONDS)

    await report_for_ever(stub.ReportBacklog, reports)
