"""Tells the registry what became of the requests of models with rollouts: it takes back what breaks its bounds."""

import asyncio
import contextlib
import time

import grpc
from grpc import aio

from headrace.v1.rollout_pb2 import ModelOutcomes, ReportOutcomesRequest, Rollout
from headrace.v1.rollout_pb2_grpc import RolloutServiceStub
from services.gateway.observation import Observer
from services.gateway.routes import Routes
from services.gateway.shadows import Shadows

REPORT_SECONDS = 1.0


class OutcomeReporter:
    """Reports each second, while there are rollouts."""

    def __init__(
        self, gateway_id: str, routes: Routes, observer: Observer, shadows: Shadows, registry: aio.Channel
    ) -> None:
        self._gateway_id = gateway_id
        self._routes = routes
        self._observer = observer
        self._shadows = shadows
        self._stub = RolloutServiceStub(registry)
        # Model → the revision that this gateway knows, and since when.
        self._since: dict[str, tuple[int, float]] = {}

    async def run(self) -> None:
        """Reports for ever; a registry that is away hears the next report."""
        while True:
            await asyncio.sleep(REPORT_SECONDS)
            now = time.monotonic()
            models = [self._outcomes(name, rollout, now) for name, rollout in self._routes.rollouts()]
            if models:
                request = ReportOutcomesRequest(gateway_id=self._gateway_id, models=models)
                with contextlib.suppress(grpc.RpcError):
                    await self._stub.ReportOutcomes(request, timeout=REPORT_SECONDS)

    def _outcomes(self, name: str, rollout: Rollout, now: float) -> ModelOutcomes:
        revision, since = self._since.get(name, (0, 0.0))
        if revision != rollout.revision:
            since = now
            self._since[name] = (rollout.revision, now)
        said = ModelOutcomes(name=name, revision=rollout.revision)
        for route in self._routes.versions(name):
            if route.version in {rollout.stable, rollout.candidate}:
                copied = rollout.shadow and route.version == rollout.candidate
                source = self._shadows if copied else self._observer
                seen = source.stats(route).outcomes(now, since)
                said.versions.add(version=route.version, failed=seen.failed, answered=seen.answered)
        return said
