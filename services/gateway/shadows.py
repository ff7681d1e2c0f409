"""Copies of requests for a version on trial: run after the answer has gone out, compared with it, never returned."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from headrace.inference.grpc_service_pb2 import ModelInferRequest, ModelInferResponse
from headrace.v1.rollout_pb2 import ShadowStatus
from services.common.errors import HeadraceError
from services.common.telemetry.instruments import GatewayInstruments
from services.gateway.backend import Backend, Work
from services.gateway.comparison import same_answer
from services.gateway.routes import Route
from services.gateway.stats import ModelStats

# Copies under way at a time, of all models; more are dropped, so that a slow candidate costs its callers nothing.
MOST_UNDER_WAY = 32


class Shadows:
    """Runs copies and counts what they showed.

    What a candidate does with copies is kept apart from its statistics: nobody called it.
    """

    def __init__(self, backend: Backend, instruments: GatewayInstruments) -> None:
        self._backend = backend
        self._instruments = instruments
        self._seen: dict[str, ShadowStatus] = {}
        self._stats: dict[str, ModelStats] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._group: asyncio.TaskGroup | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Owns the copies' tasks; those under way at the end are given up."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            try:
                yield
            finally:
                self._group = None
                for task in self._tasks:
                    task.cancel()

    def copy(self, route: Route, request: ModelInferRequest, body: bytes, answer: bytes) -> None:
        """Gives the version on trial the same request.

        Args:
            answer: what the caller got, serialised.
        """
        seen = self._seen.setdefault(route.queue, ShadowStatus())
        if self._group is None or len(self._tasks) >= MOST_UNDER_WAY:
            self._count(route, seen, "dropped")
            return
        task = self._group.create_task(self._run(route, request, body, answer, seen), name=f"copy for {route.queue}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def status(self, route: Route) -> ShadowStatus | None:
        """What copies for a version showed; None: there were none."""
        return self._seen.get(route.queue)

    def stats(self, route: Route) -> ModelStats:
        """Latencies and failures of the copies."""
        return self._stats.setdefault(route.queue, ModelStats())

    async def _run(
        self, route: Route, request: ModelInferRequest, body: bytes, answer: bytes, seen: ShadowStatus
    ) -> None:
        began, stats = time.monotonic(), self.stats(route)
        try:
            rows = route.signature.check(request)
            copied = await self._backend.infer(Work(route, body, rows, route.timeout))
            alike = same_answer(ModelInferResponse.FromString(answer), ModelInferResponse.FromString(copied.body))
        except HeadraceError:
            now = time.monotonic()
            stats.failed(now, now - began, blamed=True)
            self._count(route, seen, "failed")
        else:
            now = time.monotonic()
            stats.answered(now, time.time_ns() // 1_000_000, now - began, rows, copied.receipt)
            self._count(route, seen, "matched" if alike else "differed")

    def _count(self, route: Route, seen: ShadowStatus, outcome: str) -> None:
        setattr(seen, outcome, getattr(seen, outcome) + 1)
        self._instruments.shadow(route.name, route.version, outcome)
