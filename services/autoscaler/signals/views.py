"""What a picture of the system is made of. Pure."""

from dataclasses import dataclass

from services.autoscaler.policy.observation import Observation
from services.autoscaler.signals.workers import Phase


@dataclass(frozen=True, slots=True)
class QueueKey:
    """A model version."""

    name: str
    version: int

    def __str__(self) -> str:
        return f"{self.name}:{self.version}"


@dataclass(frozen=True, slots=True)
class QueueDepth:
    """What the broker says of a queue; `unacknowledged` is None where it does not tell."""

    ready: int
    unacknowledged: int | None


@dataclass(frozen=True, slots=True)
class QueueView:
    """One queue, for people. Rates are requests a second; `jobs` wait where gateways do not see them."""

    key: QueueKey
    backlog: int
    depth: QueueDepth
    running: int
    arrival_rate: float
    service_rate: float
    service_seconds: float | None
    oldest_seconds: float
    jobs: int = 0


@dataclass(frozen=True, slots=True)
class WorkerView:
    """One worker, for people and for who picks the one to leave.

    Attributes:
        id: as the orchestrator names it; where it names none, as the worker names itself.
    """

    id: str
    phase: Phase
    running: int = 0
    models: frozenset[str] = frozenset()
    resident_bytes: int = 0
    age: float = 0.0


@dataclass(frozen=True, slots=True)
class Picture:
    """Everything at one moment."""

    observation: Observation
    queues: tuple[QueueView, ...]
    workers: tuple[WorkerView, ...]
