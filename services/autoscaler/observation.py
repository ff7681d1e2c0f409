"""The autoscaler seen from outside: what it sees and decides, as metrics."""

from services.autoscaler.policy.config import Limits
from services.autoscaler.policy.observation import Decision
from services.autoscaler.signals.views import Picture, QueueKey, QueueView
from services.autoscaler.signals.workers import Phase
from services.common.telemetry.ledger import Counter, Family, Gauge, Ledger

_NUMBERS = {
    "target": "Workers decided on",
    "needed": "Workers that the signals alone call for, before limits and windows",
    "min": "Fewest workers allowed",
    "max": "Most workers allowed",
}


class ScalingObserver:
    """What an autoscaler exports. Made once a process.

    A standby decides along, and exports what it would do: `headrace.autoscaler.active` tells the one that acts.
    """

    def __init__(self, ledger: Ledger) -> None:
        family = ledger.family
        self._numbers = {
            name: _gauge(family(f"headrace.autoscaler.workers.{name}", "{worker}", text), {})
            for name, text in _NUMBERS.items()
        }
        present = family("headrace.autoscaler.workers", "{worker}", "Workers that are there, by what they do")
        self._present = {phase: _gauge(present, {"headrace.worker.phase": phase.value}) for phase in Phase}
        self._panic = _gauge(family("headrace.autoscaler.panic", "", "1: a burst is on, nobody leaves"), {})
        self._active = _gauge(family("headrace.autoscaler.active", "", "1: this process acts; 0: it stands by"), {})
        self._age = _gauge(
            family("headrace.autoscaler.signals.age", "s", "Since the signals were true; infinite: some are missing"),
            {},
        )
        changes = family("headrace.autoscaler.changes", "{change}", "Decisions that changed the number of workers")
        self._changes: dict[bool, Counter] = {}
        for up, direction in ((True, "up"), (False, "down")):
            changes.add({"headrace.autoscaler.direction": direction}, counter := Counter())
            self._changes[up] = counter
        self._backlog = family("headrace.queue.backlog", "{request}", "Accepted and not answered, waiting or running")
        self._ready = family("headrace.queue.ready", "{request}", "Waiting in the broker")
        self._oldest = family("headrace.queue.oldest.age", "s", "Age of the oldest request that is not answered")
        self._queues: dict[QueueKey, tuple[Gauge, Gauge, Gauge]] = {}

    def saw(self, picture: Picture) -> None:
        """The system is like this now. Queues that are gone are exported no more."""
        self._age.set(picture.observation.age)
        for phase, gauge in self._present.items():
            gauge.set(sum(worker.phase is phase for worker in picture.workers))
        for queue in picture.queues:
            backlog, ready, oldest = self._queues.get(queue.key) or self._new(queue)
            backlog.set(queue.backlog)
            ready.set(queue.depth.ready)
            oldest.set(queue.oldest_seconds)
        for gone in self._queues.keys() - {queue.key for queue in picture.queues}:
            del self._queues[gone]
            for family in (self._backlog, self._ready, self._oldest):
                family.forget(_of(gone))

    def decided(self, decision: Decision, previous: int, limits: Limits, *, active: bool) -> None:
        """There are to be `decision.target` workers; it was `previous` before."""
        for name, value in (
            ("target", decision.target),
            ("needed", decision.needed),
            ("min", limits.least),
            ("max", limits.most),
        ):
            self._numbers[name].set(value)
        self._panic.set(int(decision.panic))
        self._active.set(int(active))
        if decision.target != previous:
            self._changes[decision.target > previous].add()

    def _new(self, queue: QueueView) -> tuple[Gauge, Gauge, Gauge]:
        labels = _of(queue.key)
        made = _gauge(self._backlog, labels), _gauge(self._ready, labels), _gauge(self._oldest, labels)
        self._queues[queue.key] = made
        return made


def _of(key: QueueKey) -> dict[str, str | int]:
    return {"headrace.model.name": key.name, "headrace.model.version": key.version}


def _gauge(family: Family, attributes: dict[str, str | int]) -> Gauge:
    family.add(attributes, gauge := Gauge())
    return gauge
