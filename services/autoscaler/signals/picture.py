"""One picture of the system out of fleet reports, the broker's depths and the orchestrator's list. Pure.

Where each signal comes from:

- What callers want (backlog, arrivals, oldest age) from the **gateways**: each knows what it accepted and has not
  answered, waiting or running, and drops what expired. That needs no broker that could tell unacknowledged messages.
- What jobs are still to send from the **job service**, which has only a few requests at gateways at a time.
- What is in workers' hands from the **workers**: `running`.
- What waits from the **broker**; the embedded one also tells what is unacknowledged, RabbitMQ's passive declare does
  not.

The backlog is the largest of the three, so none of them being away makes busy workers look idle. If no gateway reports,
a report is old, or the broker does not answer, the picture is as old as what is missing, and nobody leaves on it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf

from headrace.v1.fleet_pb2 import SeenWorker, WatchFleetResponse
from services.autoscaler.orchestrators.port import Instance
from services.autoscaler.policy.observation import Demand, Observation
from services.autoscaler.service_time import ServiceTime
from services.autoscaler.signals.counts import Counts, Rate
from services.autoscaler.signals.views import Picture, QueueDepth, QueueKey, QueueView, WorkerView
from services.autoscaler.signals.workers import Phase, Progress, Starts

STUCK_SECONDS = 120.0


def waiting_of_jobs(fleet: WatchFleetResponse, accepted: Mapping[QueueKey, int]) -> dict[QueueKey, int]:
    """Requests of jobs that no gateway has yet, by the versions that they will go to.

    Where a job names no version that is the one of the model of which gateways have most: a job has always some there.

    Args:
        accepted: what gateways have.
    """
    waiting: dict[QueueKey, int] = {}
    for backlog in fleet.backlogs:
        for each in backlog.waiting:
            candidates = [key for key in accepted if key.name == each.name and each.version in {0, key.version}]
            if candidates:
                key = max(candidates, key=lambda key: (accepted[key], key.version))
                waiting[key] = waiting.get(key, 0) + each.requests
    return waiting


@dataclass(slots=True)
class Painter:
    """Keeps what must be remembered between two pictures. Times are monotonic seconds.

    Args:
        stuck_seconds: a worker with work in hand and no progress for so long does not count.
    """

    stuck_seconds: float = STUCK_SECONDS
    starts: Starts = field(default_factory=Starts)
    _arrived: Counts = field(default_factory=Counts)
    _served: Counts = field(default_factory=Counts)
    _batches: Counts = field(default_factory=Counts)
    _busy: Counts = field(default_factory=Counts)
    _service: dict[QueueKey, ServiceTime] = field(default_factory=dict)
    _largest: dict[QueueKey, int] = field(default_factory=dict)
    _rates: dict[tuple[str, QueueKey], Rate] = field(default_factory=dict)
    _progress: Progress = field(init=False)

    def __post_init__(self) -> None:
        self._progress = Progress(self.stuck_seconds)

    def paint(
        self,
        now: float,
        fleet: WatchFleetResponse | None,
        fleet_age: float,
        depths: dict[QueueKey, QueueDepth] | None,
        instances: list[Instance] | None,
    ) -> Picture:
        """The picture now.

        Args:
            fleet: the latest from the registry's process, and `fleet_age` seconds since; None: nothing yet.
            depths: None: the broker does not answer.
            instances: what the orchestrator runs; None: there is none, workers are who reports.
        """
        fleet = fleet or WatchFleetResponse()
        for seen in fleet.workers:
            self._learn(seen)
        workers = self._workers(now, fleet, instances)
        queues = tuple(self._queues(now, fleet, depths or {}))
        gateways = [seen.age_ms / 1000 for seen in fleet.gateways]
        self._forget(fleet, workers)
        ready = sum(worker.phase is Phase.READY for worker in workers)
        observation = Observation(
            demands=tuple(
                Demand(str(view.key), view.backlog, self._arrived.total(str(view.key)), view.service_seconds, view.jobs)
                for view in queues
            ),
            ready=ready,
            starting=tuple(worker.age for worker in workers if worker.phase is Phase.STARTING),
            age=inf if not gateways or depths is None else fleet_age + max(gateways),
            start_seconds=self.starts.seconds,
        )
        return Picture(observation, queues, workers)

    def _learn(self, seen: SeenWorker) -> None:
        """What requests cost, from what the worker's counters grew by."""
        worker = seen.worker
        for model in worker.models:
            key = QueueKey(model.name, model.version)
            self._largest[key] = model.max_batch_size
            batches = self._batches.note(worker.id, str(key), model.batches)
            requests = self._served.note(worker.id, str(key), model.requests)
            seconds = self._busy.note(worker.id, str(key), model.busy_us) / 1e6
            self._service.setdefault(key, ServiceTime()).note(batches, requests, seconds)

    def _workers(
        self, now: float, fleet: WatchFleetResponse, instances: list[Instance] | None
    ) -> tuple[WorkerView, ...]:
        # By the name that its orchestrator gave a worker, or by its container's or pod's.
        reports = {seen.worker.hostname: seen.worker for seen in fleet.workers}
        reports |= {seen.worker.id: seen.worker for seen in fleet.workers}
        if instances is None:
            names = [seen.worker.id for seen in fleet.workers]
            instances = [Instance(name, frozenset({name}), self._progress.age(now, name)) for name in names]
        views = []
        for instance in instances:
            worker = next((reports[name] for name in instance.names if name in reports), None)
            phase = Phase.STARTING if worker is None else self._progress.phase(now, worker)
            phase = Phase.LEAVING if instance.leaving else phase
            self.starts.note(instance.id, instance.age, phase)
            if worker is None:
                views.append(WorkerView(instance.id, phase, age=instance.age))
            else:
                models = frozenset(f"{model.name}:{model.version}" for model in worker.models)
                view = WorkerView(instance.id, phase, worker.running, models, worker.resident_bytes, instance.age)
                views.append(view)
        return tuple(views)

    def _queues(self, now: float, fleet: WatchFleetResponse, depths: dict[QueueKey, QueueDepth]) -> list[QueueView]:
        accepted, oldest, running = dict[QueueKey, int](), dict[QueueKey, float](), dict[QueueKey, int]()
        for seen in fleet.gateways:
            for queue in seen.gateway.queues:
                key = QueueKey(queue.name, queue.version)
                self._arrived.note(seen.gateway.id, str(key), queue.accepted)
                accepted[key] = accepted.get(key, 0) + queue.in_flight
                oldest[key] = max(oldest.get(key, 0.0), queue.oldest_ms / 1000)
        for worker in (seen.worker for seen in fleet.workers):
            for model in worker.models:
                key = QueueKey(model.name, model.version)
                running[key] = running.get(key, 0) + model.running
        views = []
        waiting = waiting_of_jobs(fleet, accepted)
        for key in sorted(accepted.keys() | running.keys() | depths.keys(), key=str):
            depth = depths.get(key, QueueDepth(0, None))
            held = running.get(key, 0) if depth.unacknowledged is None else depth.unacknowledged
            service = self._service.get(key)
            views.append(
                QueueView(
                    key=key,
                    backlog=max(accepted.get(key, 0), depth.ready + held, running.get(key, 0)),
                    depth=depth,
                    running=running.get(key, 0),
                    arrival_rate=self._rate("arrived", key, now, self._arrived.total(str(key))),
                    service_rate=self._rate("served", key, now, self._served.total(str(key))),
                    service_seconds=service.per_request(self._largest[key]) if service is not None else None,
                    oldest_seconds=oldest.get(key, 0.0),
                    jobs=waiting.get(key, 0),
                )
            )
        return views

    def _rate(self, kind: str, key: QueueKey, now: float, total: float) -> float:
        return self._rates.setdefault((kind, key), Rate()).to(now, total)

    def _forget(self, fleet: WatchFleetResponse, workers: tuple[WorkerView, ...]) -> None:
        """What is kept of processes that are gone."""
        present = {seen.worker.id for seen in fleet.workers}
        self._progress.keep(present)
        self.starts.keep({worker.id for worker in workers})
        for counts in (self._served, self._batches, self._busy):
            counts.keep(present)
        self._arrived.keep({seen.gateway.id for seen in fleet.gateways})
