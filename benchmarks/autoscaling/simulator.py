"""A discrete-event simulation of a queue, workers that batch and take time to start, and whoever decides their number.

The queue is first in, first out. An idle worker takes what waits, up to a full batch, at once. A worker that is to
leave finishes its batch first. Worker-seconds are counted from the moment at which a worker is asked for.
"""

import heapq
import itertools
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from benchmarks.autoscaling.arrivals import Arrival
from services.autoscaler.policy.observation import Demand, Observation
from services.autoscaler.service_time import ServiceTime

SAMPLE_SECONDS = 1.0


class Scaler(Protocol):
    """Decides how many workers there are to be.

    Attributes:
        interval: seconds between two decisions.
        wakes: is asked at once when a request comes and there is no worker.
    """

    interval: float
    wakes: bool

    def target(self, now: float, observation: Observation) -> int:
        """The number from now on."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What a worker is like: seconds to start, seconds that a batch costs beside its requests, its largest batch."""

    start_seconds: float = 15.0
    batch_seconds: float = 0.05
    max_batch: int = 8


@dataclass(slots=True, eq=False)
class _Worker:
    asked_at: float
    ready: bool = False
    leaving: bool = False
    batch: list[Arrival] = field(default_factory=list)


@dataclass(slots=True)
class Outcome:
    """What came of it. `samples`: (time, workers ready or starting, workers ready, requests unanswered) each second."""

    latencies: list[tuple[float, float]] = field(default_factory=list)
    worker_seconds: float = 0.0
    samples: list[tuple[float, int, int, int]] = field(default_factory=list)

    def late(self, seconds: float) -> int:
        """Requests answered later than this."""
        return sum(latency > seconds for _, latency in self.latencies)

    def percentile(self, share: float) -> float:
        """Latency in seconds that this share of the requests did not exceed."""
        latencies = sorted(latency for _, latency in self.latencies)
        return latencies[min(len(latencies) - 1, int(len(latencies) * share))] if latencies else 0.0


class Simulation:
    """One run; `run` may be called once."""

    def __init__(self, arrivals: list[Arrival], scaler: Scaler, machine: Machine, *, workers: int = 0) -> None:
        self._arrivals = arrivals
        self._scaler = scaler
        self._machine = machine
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._waiting: deque[Arrival] = deque()
        self._workers = [_Worker(0.0, ready=True) for _ in range(workers)]
        self._service = ServiceTime()
        self._arrived = 0
        self._answered = 0
        self._now = 0.0
        self._outcome = Outcome()

    def run(self) -> Outcome:
        """Until everything is answered."""
        for arrival in self._arrivals:
            self._at(arrival.at, partial(self._arrive, arrival))
        self._at(0.0, self._tick)
        self._at(0.0, self._sample)
        while self._events and self._answered < len(self._arrivals):
            self._now, _, event = heapq.heappop(self._events)
            event()
        for worker in self._workers:
            self._outcome.worker_seconds += self._now - worker.asked_at
        return self._outcome

    def _at(self, when: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._order), event))

    def _arrive(self, arrival: Arrival) -> None:
        self._arrived += 1
        self._waiting.append(arrival)
        if not self._workers and self._scaler.wakes:
            self._decide()
        self._serve()

    def _tick(self) -> None:
        self._decide()
        self._at(self._now + self._scaler.interval, self._tick)

    def _sample(self) -> None:
        staying = [worker for worker in self._workers if not worker.leaving]
        ready = sum(worker.ready for worker in staying)
        self._outcome.samples.append((self._now, len(staying), ready, self._arrived - self._answered))
        self._at(self._now + SAMPLE_SECONDS, self._sample)

    def _decide(self) -> None:
        staying = [worker for worker in self._workers if not worker.leaving]
        demand = Demand(
            "queue", self._arrived - self._answered, self._arrived, self._service.per_request(self._machine.max_batch)
        )
        observation = Observation(
            demands=(demand,),
            ready=sum(worker.ready for worker in staying),
            starting=tuple(self._now - worker.asked_at for worker in staying if not worker.ready),
            start_seconds=self._machine.start_seconds,
        )
        target = self._scaler.target(self._now, observation)
        for _ in range(target - len(staying)):
            worker = _Worker(self._now)
            self._workers.append(worker)
            self._at(self._now + self._machine.start_seconds, partial(self._started, worker))
        # Those that are not ready yet leave first, then idle ones.
        staying.sort(key=lambda worker: (worker.ready, bool(worker.batch)))
        for worker in staying[: max(0, len(staying) - target)]:
            worker.leaving = True
            if not worker.batch:
                self._leave(worker)

    def _started(self, worker: _Worker) -> None:
        worker.ready = True
        self._serve()

    def _leave(self, worker: _Worker) -> None:
        if worker in self._workers:
            self._workers.remove(worker)
            self._outcome.worker_seconds += self._now - worker.asked_at

    def _serve(self) -> None:
        for worker in self._workers:
            if not self._waiting:
                return
            if worker.ready and not worker.leaving and not worker.batch:
                size = min(self._machine.max_batch, len(self._waiting))
                worker.batch = [self._waiting.popleft() for _ in range(size)]
                seconds = self._machine.batch_seconds + sum(arrival.seconds for arrival in worker.batch)
                self._at(self._now + seconds, partial(self._finish, worker, seconds))

    def _finish(self, worker: _Worker, seconds: float) -> None:
        self._service.note(1, len(worker.batch), seconds)
        self._answered += len(worker.batch)
        self._outcome.latencies += [(arrival.at, self._now - arrival.at) for arrival in worker.batch]
        worker.batch = []
        if worker.leaving:
            self._leave(worker)
        else:
            self._serve()
