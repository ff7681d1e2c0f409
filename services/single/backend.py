"""A model in this very process as a Backend: one request at a time, no queue, a latency line for each."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from headrace.inference.grpc_service_pb2 import ModelInferRequest
from headrace.v1.model_pb2 import ModelVersion
from services.common.errors import DeadlineExceeded, Unimplemented, error_of
from services.gateway.backend import Answer, Events, Work
from services.gateway.quotas import Quotas
from services.gateway.routes import Route
from services.worker.device import Device
from services.worker.execution import Job, run_batch
from services.worker.observation import BatchObserver
from services.worker.runtime.port import LoadedModel

log = logging.getLogger("headrace.latency")


class LocalBackend:
    """Implements Backend. Callers wait for their turn in the order in which they came; tenants by what they had."""

    def __init__(self, model: LoadedModel, version: ModelVersion, device: Device, observer: BatchObserver) -> None:
        self._model = model
        self._version = version
        self._device = device
        self._observer = observer
        self._quotas = Quotas()

    async def infer(self, work: Work) -> Answer:
        """Runs one request alone. Raises QueueFull, DeadlineExceeded, ModelFailed, InvalidArgument."""
        if work.tenant is None:
            return await self._infer(work)
        self._quotas.begin(work.tenant, asyncio.get_running_loop().time())
        try:
            return await self._infer(work)
        finally:
            self._quotas.end(work.tenant)

    async def _infer(self, work: Work) -> Answer:
        accepted_us = time.time_ns() // 1000
        try:
            async with asyncio.timeout(work.timeout), self._turn(work):
                received_us = time.time_ns() // 1000
                request, traceparent = ModelInferRequest.FromString(work.body), _traceparent(work)
                job = Job(1, request, work.rows, accepted_us, received_us, traceparent)
                replies, runs = await self._device.run(lambda: run_batch(self._model, self._version, [job]))
                self._observer.ran(runs)
        except TimeoutError as error:
            raise DeadlineExceeded(f"no answer within {work.timeout:.3g} s: other requests were in front") from error
        reply, total_ms = replies[0], (time.time_ns() // 1000 - accepted_us) / 1000
        outcome = "error" if reply.WhichOneof("outcome") == "error" else "ok"
        log.info(
            "model=%s version=%d outcome=%s wait_ms=%.3f compute_ms=%.3f total_ms=%.3f",
            self._version.name,
            self._version.version,
            outcome,
            reply.receipt.queue_us / 1000,
            reply.receipt.compute_us / 1000,
            total_ms,
        )
        if outcome == "error":
            raise error_of(reply.error.code, reply.error.message)
        return Answer(reply.body, reply.receipt)

    @asynccontextmanager
    async def _turn(self, work: Work) -> AsyncIterator[None]:
        """The device, for the tenant who has had least of it; its callers in their order."""
        shares, name = self._device.turns.shares, work.tenant.name if work.tenant is not None else ""
        shares.join(name, work.tenant.weight if work.tenant is not None else 1.0)
        async with self._device.turns.mine(had=lambda: shares.had(name), level=work.level):
            began = time.perf_counter()
            try:
                yield
            finally:
                shares.serve(name, time.perf_counter() - began)

    def generate(self, work: Work) -> Events:
        """Never asked for: language models have a backend of their own. Raises Unimplemented."""
        raise Unimplemented(f"'{work.route.name}' is no language model")

    def ready(self) -> bool:
        """The model was loaded before the server began to listen."""
        return True

    async def model_ready(self, route: Route) -> bool:
        """There is one model, and it is loaded."""
        return True


def _traceparent(work: Work) -> str:
    return work.trace.traceparent if work.trace is not None else ""
