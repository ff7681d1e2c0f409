"""The workers of a local stack: as many as somebody asks for. Serves SupervisorService to the autoscaler."""

import asyncio
import itertools
import os
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from grpc import aio

from headrace.cli.supervisor import Child, StartError
from headrace.v1 import supervisor_pb2 as pb
from headrace.v1.supervisor_pb2_grpc import SupervisorServiceServicer, add_SupervisorServiceServicer_to_server


@dataclass(slots=True)
class _Member:
    child: Child
    asked_at: float = field(default_factory=time.monotonic)


class WorkerPool(SupervisorServiceServicer):
    """Implements SupervisorService.

    Args:
        make: a child of this name, not started yet.
        keep: looks after a child that has started, so that it comes back when it crashes.
        changed: called when one has come or gone.
        say: called with each line that a person should read.
    """

    def __init__(
        self,
        make: Callable[[str], Child],
        keep: Callable[[Child], None],
        changed: Callable[[], None],
        say: Callable[[str], None],
    ) -> None:
        self._make = make
        self._keep = keep
        self._changed = changed
        self._say = say
        self._members: dict[str, _Member] = {}
        # A start is work for one core. More of them at once would all be ready late, the first one above all.
        self._places = asyncio.Semaphore(os.cpu_count() or 1)
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def children(self) -> list[Child]:
        """Those that run, are on their way, or leave."""
        return [member.child for member in self._members.values()]

    async def start(self) -> None:
        """One more. Raises StartError."""
        name = next(name for number in itertools.count(1) if (name := f"worker-{number}") not in self._members)
        child = self._make(name)
        self._members[name] = _Member(child)
        try:
            async with self._places:
                if not child.stopping:
                    await child.start()
        except BaseException:
            self._members.pop(name, None)
            raise
        if child.stopping:  # it was told to leave before it was there
            await self._end(child)
            return
        self._keep(child)
        self._changed()

    async def stop(self) -> None:
        """All of them, and nobody comes any more."""
        await asyncio.gather(*(child.stop() for child in self.children))
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def ListProcesses(self, request: pb.ListProcessesRequest, context: Any) -> pb.ListProcessesResponse:
        """Every worker."""
        now = time.monotonic()
        response = pb.ListProcessesResponse()
        for name, member in self._members.items():
            age_ms = int((now - member.asked_at) * 1000)
            response.workers.add(name=name, age_ms=age_ms, leaving=member.child.stopping)
        return response

    async def StartWorkers(self, request: pb.StartWorkersRequest, context: Any) -> pb.StartWorkersResponse:
        """In the background; each is listed before this returns."""
        for _ in range(request.count):
            self._spawn(self._start())
        await asyncio.sleep(0)
        return pb.StartWorkersResponse()

    async def StopWorkers(self, request: pb.StopWorkersRequest, context: Any) -> pb.StopWorkersResponse:
        """In the background; those named are leaving before this returns. Names that are not there are gone already."""
        for name in request.names:
            if (member := self._members.get(name)) is not None and not member.child.stopping:
                member.child.stopping = True
                self._spawn(self._end(member.child))
        return pb.StopWorkersResponse()

    async def _start(self) -> None:
        try:
            await self.start()
        except StartError as error:
            self._say(f"[red]a worker did not start[/red]: {error}")

    async def _end(self, child: Child) -> None:
        await child.stop()
        self._members.pop(child.name, None)
        self._changed()

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        """Answers the autoscaler of this machine; yields the path of a socket, which only this user can reach."""
        server = aio.server()
        add_SupervisorServiceServicer_to_server(self, server)
        with tempfile.TemporaryDirectory(prefix="headrace-") as folder:
            path = f"{folder}/supervisor"
            server.add_insecure_port(f"unix:{path}")
            await server.start()
            try:
                yield path
            finally:
                await server.stop(0.2)
