"""Batches of one version on the device, and their replies on the way."""

import time

from headrace.v1.model_pb2 import ModelVersion
from headrace.v1.reply_pb2 import Reply
from services.common.errors import FailedPrecondition
from services.worker.device import Device
from services.worker.execution import Job, failure, run_batch
from services.worker.intake import Held
from services.worker.loading import Loader
from services.worker.meter import Meter
from services.worker.observation import BatchObserver
from services.worker.recorder import Recorder
from services.worker.runtime.port import LoadedModel


class Runs:
    """Runs what it is given, whoever has the device's turn.

    Attributes:
        instances: batches that may run at a time.
        under_way: requests on the device.
        completed: requests since the start.
    """

    def __init__(
        self,
        version: ModelVersion,
        loader: Loader[LoadedModel],
        device: Device,
        recorder: Recorder,
        observer: BatchObserver,
    ) -> None:
        self.meter = Meter()
        self.instances = max(1, version.spec.instances)
        self.under_way = self.completed = 0
        self._version = version
        self._loader = loader
        self._device = device
        self._recorder = recorder
        self._doing = recorder.running((version.name, version.version))
        self._observer = observer

    async def run(self, batch: list[Held]) -> None:
        """Runs a batch and hands the replies over."""
        for held in batch:
            held.ticket.started = True
        self.under_way += len(batch)
        jobs = [held.job for held in batch if held.job is not None]
        replies = await self._replies(jobs)
        hurry = batch[0].intake.short
        for held, reply in zip(batch, replies, strict=True):
            held.link.reply(reply, held.ticket.settle, hurry=hurry)
        self.under_way -= len(batch)
        self.completed += len(batch)

    async def _replies(self, jobs: list[Job]) -> list[Reply]:
        model = self._loader.model
        if model is None:
            error = FailedPrecondition(self._loader.why_not())
            return [failure(job.id, error) for job in jobs]
        began = time.perf_counter()
        with self._recorder.during(self._doing):
            if self.meter.brief and self.instances == 1 and model.device == "cpu":
                replies, runs = run_batch(model, self._version, jobs)
            else:
                alone = self.instances == 1
                replies, runs = await self._device.run(lambda: run_batch(model, self._version, jobs), alone=alone)
        # With several at a time, each takes its part of the device's time.
        seconds, compute_ns = time.perf_counter() - began, sum(run.compute_ns for run in runs)
        self.meter.ran(len(jobs), seconds / self.instances, compute_ns / 1e9)
        self._observer.ran(runs)
        return replies
