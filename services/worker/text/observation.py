"""One language model on this worker, seen from outside: its engine's metrics, and its requests' spans."""

import time
from collections.abc import Callable

from services.common.queues import queue_name
from services.common.telemetry.batches import Batch, TracedRequest
from services.common.telemetry.generations import EngineSeries
from services.common.telemetry.setup import Telemetry
from services.worker.llm.port import EngineStats
from services.worker.text.generation import Generation


class TextObserver:
    """Records the engine's steps and finished requests of one model version.

    Args:
        stats: the engine's, None while there is none.
        system: the broker's name in traces.
    """

    def __init__(
        self, telemetry: Telemetry, stats: Callable[[], EngineStats | None], *, name: tuple[str, int], system: str
    ) -> None:
        self._telemetry = telemetry
        self._model, self._version = name
        self._system = system
        self._series = EngineSeries(telemetry.ledger, self._model, self._version, stats)

    def step(self) -> None:
        """The engine has made one."""
        self._series.step()

    def finished(self, generation: Generation, companions: int) -> None:
        """A request came to its end: its spans, if it is sampled."""
        work = generation.work
        if not work.traceparent:
            return
        now, clock = time.time_ns(), time.monotonic_ns()
        began = now - (clock - generation.submitted_ns)
        request = TracedRequest(work.traceparent, work.accepted_unix_us * 1000, generation.received_unix_us * 1000)
        batch = Batch(
            model=self._model,
            version=self._version,
            queue=queue_name(self._model, self._version),
            rows=companions,
            requests=companions,
            start_ns=began,
            end_ns=now,
            # From the first token on; before it, the engine read the prompt, or others'.
            compute_start_ns=now - (clock - generation.begun_ns),
            compute_ns=clock - generation.begun_ns,
            system=self._system,
        )
        self._telemetry.record_batch([request], batch)

    def forget(self) -> None:
        """The version was deleted."""
        self._series.forget()
