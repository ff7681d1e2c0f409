"""Who leaves: the workers whose leaving costs least. Pure."""

from collections import Counter
from collections.abc import Iterable

from services.autoscaler.signals.views import WorkerView
from services.autoscaler.signals.workers import Phase


def victims(workers: Iterable[WorkerView], count: int) -> list[str]:
    """The ids of up to `count` workers, one after another.

    First those that are stuck, then those still on their way (the youngest first: it has cost least), then ready ones:
    those that nobody would miss a model of, idle ones before busy ones, those that hold least, the youngest.
    """
    left = [worker for worker in workers if worker.phase is not Phase.LEAVING]
    chosen: list[str] = []
    while left and len(chosen) < count:
        holders = Counter(model for worker in left for model in worker.models)
        cheapest = min(left, key=lambda worker: _cost(worker, holders))
        left.remove(cheapest)
        chosen.append(cheapest.id)
    return chosen


def _cost(worker: WorkerView, holders: Counter[str]) -> tuple[bool, bool, int, int, int, float, str]:
    unique = sum(holders[model] == 1 for model in worker.models)
    return (
        worker.phase is not Phase.STUCK,
        worker.phase is not Phase.STARTING,
        unique,
        worker.running,
        len(worker.models),
        worker.age,
        worker.id,
    )
