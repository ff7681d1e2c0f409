"""One model version on this worker, seen from outside: its metrics, and its batches' spans."""

from services.common.telemetry.batches import Batch, TracedRequest
from services.common.telemetry.instruments import WorkerInstruments
from services.common.telemetry.setup import Telemetry
from services.worker.execution import Run


class BatchObserver:
    """Records the runs of one model version.

    Args:
        system: the broker's name in traces; empty: there is no queue.
    """

    def __init__(
        self,
        telemetry: Telemetry,
        instruments: WorkerInstruments,
        *,
        model: str,
        version: int,
        queue: str,
        system: str,
    ) -> None:
        self._telemetry = telemetry
        self._instruments = instruments
        self._series = instruments.of(model, version)
        self._model = model
        self._version = version
        self._queue = queue
        self._system = system

    def ran(self, runs: list[Run]) -> None:
        """The device has run these."""
        for run in runs:
            self._series.batch(run.rows, run.compute_ns / 1e9)
            start_us, traced = run.start_ns // 1000, False
            for job in run.jobs:
                queued, waited = job.received_unix_us - job.accepted_unix_us, start_us - job.received_unix_us
                if not job.background:
                    self._series.waited(max(0, queued) / 1e6, max(0, waited) / 1e6)
                traced = traced or bool(job.traceparent)
            if run.error:
                self._series.failed.add()
            if traced:
                self._trace(run)

    def loaded(self, loaded: bool) -> None:
        """The model is in memory, or no longer."""
        self._series.loaded(loaded)

    def forget(self) -> None:
        """The version was deleted: nothing of it is exported any more."""
        self._instruments.forget(self._model, self._version)

    def _trace(self, run: Run) -> None:
        requests = [
            TracedRequest(job.traceparent, job.accepted_unix_us * 1000, job.received_unix_us * 1000, run.error)
            for job in run.jobs
            if job.traceparent
        ]
        batch = Batch(
            model=self._model,
            version=self._version,
            queue=self._queue,
            rows=run.rows,
            requests=len(run.jobs),
            start_ns=run.start_ns,
            end_ns=run.end_ns,
            compute_start_ns=run.compute_start_ns,
            compute_ns=run.compute_ns,
            system=self._system,
            stages=run.stages,
        )
        self._telemetry.record_batch(requests, batch)
