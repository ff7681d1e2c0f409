"""FleetService: who is there, as soft state in this process."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from headrace.v1 import fleet_pb2 as fleet
from headrace.v1.fleet_pb2_grpc import FleetServiceServicer
from services.common.errors import InvalidArgument

# A watcher hears of a change within this, of many at once in one message, and once in a while of none.
SOON_SECONDS = 0.02
QUIET_SECONDS = 1.0


class _Named(Protocol):
    @property
    def id(self) -> str: ...


Member = TypeVar("Member", bound=_Named)


@dataclass(slots=True)
class _Members(Generic[Member]):
    """Those of one kind: each with the stream that tells of it and when it did. `changed` is called after each report.

    One that reconnects may be here by two streams for a while: the latest report counts, and only its stream ends it.
    """

    kind: str
    changed: Callable[[], None]
    known: dict[str, tuple[object, Member, float]] = field(default_factory=dict)

    async def follow(self, reports: AsyncIterator[Member]) -> None:
        """Lists the one that reports, until its stream ends. Raises InvalidArgument."""
        stream, said = object(), ""
        try:
            async for member in reports:
                if not member.id or member.id != (said or member.id):
                    raise InvalidArgument(
                        f"{self.kind}.id is '{member.id}'; expected an id, the same in every report of a stream"
                    )
                said = member.id
                self.known[said] = (stream, member, time.monotonic())
                self.changed()
        finally:
            if said in self.known and self.known[said][0] is stream:
                del self.known[said]
                self.changed()

    def listed(self) -> list[tuple[Member, int]]:
        """By id, each with the age of its report in milliseconds."""
        now = time.monotonic()
        return [(member, int((now - at) * 1000)) for _, (_, member, at) in sorted(self.known.items())]


class FleetServer(FleetServiceServicer):
    """Implements FleetService: workers, gateways and backlogs are listed while their report streams live."""

    def __init__(self) -> None:
        self._watching: set[asyncio.Event] = set()
        self._workers = _Members[fleet.Worker]("worker", self._changed)
        self._gateways = _Members[fleet.Gateway]("gateway", self._changed)
        self._backlogs = _Members[fleet.Backlog]("backlog", self._changed)

    async def ReportWorker(
        self, request_iterator: AsyncIterator[fleet.ReportWorkerRequest], context: Any
    ) -> fleet.ReportWorkerResponse:
        """The latest report counts."""
        await self._workers.follow(report.worker async for report in request_iterator)
        return fleet.ReportWorkerResponse()

    async def ReportGateway(
        self, request_iterator: AsyncIterator[fleet.ReportGatewayRequest], context: Any
    ) -> fleet.ReportGatewayResponse:
        """The latest report counts."""
        await self._gateways.follow(report.gateway async for report in request_iterator)
        return fleet.ReportGatewayResponse()

    async def ReportBacklog(
        self, request_iterator: AsyncIterator[fleet.ReportBacklogRequest], context: Any
    ) -> fleet.ReportBacklogResponse:
        """The latest report counts."""
        await self._backlogs.follow(report.backlog async for report in request_iterator)
        return fleet.ReportBacklogResponse()

    async def ListWorkers(self, request: fleet.ListWorkersRequest, context: Any) -> fleet.ListWorkersResponse:
        """By id."""
        return fleet.ListWorkersResponse(workers=[worker for worker, _ in self._workers.listed()])

    async def WatchFleet(
        self, request: fleet.WatchFleetRequest, context: Any
    ) -> AsyncIterator[fleet.WatchFleetResponse]:
        """Everything, again and again."""
        changed = asyncio.Event()
        self._watching.add(changed)
        try:
            while True:
                changed.clear()
                yield self._seen()
                try:
                    await asyncio.wait_for(changed.wait(), QUIET_SECONDS)
                    await asyncio.sleep(SOON_SECONDS)
                except TimeoutError:
                    continue
        finally:
            self._watching.discard(changed)

    def _changed(self) -> None:
        for event in self._watching:
            event.set()

    def _seen(self) -> fleet.WatchFleetResponse:
        response = fleet.WatchFleetResponse()
        for worker, age_ms in self._workers.listed():
            response.workers.add(worker=worker, age_ms=age_ms)
        for gateway, age_ms in self._gateways.listed():
            response.gateways.add(gateway=gateway, age_ms=age_ms)
        response.backlogs.extend(backlog for backlog, _ in self._backlogs.listed())
        return response
