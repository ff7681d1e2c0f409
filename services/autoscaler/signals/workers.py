"""Which workers count: those that get on with their work; and how long a start takes. Pure."""

from dataclasses import dataclass, field
from enum import Enum

from headrace.v1.fleet_pb2 import LOAD_STATE_LOADING, Worker

# How much a new start counts against those before it.
_LEARN = 0.3


class Phase(Enum):
    """What a worker is to the policy. LEAVING ones and STUCK ones do not count."""

    STARTING = "starting"
    READY = "ready"
    STUCK = "stuck"
    LEAVING = "leaving"


@dataclass(slots=True)
class _Pulse:
    beats: int
    at: float
    first_seen: float


@dataclass(slots=True)
class Progress:
    """Tells who is stuck: alive, with work in hand, and no batch run for `patience` seconds."""

    patience: float
    _pulses: dict[str, _Pulse] = field(default_factory=dict)

    def phase(self, now: float, worker: Worker) -> Phase:
        """What a worker is, going by its latest report and those before."""
        beats = worker.completed + sum(model.batches for model in worker.models)
        pulse = self._pulses.setdefault(worker.id, _Pulse(beats, now, now))
        if beats != pulse.beats or not worker.running:
            pulse.beats, pulse.at = beats, now
        if worker.draining:
            return Phase.LEAVING
        if any(model.state == LOAD_STATE_LOADING for model in worker.models):
            # Its models come into memory; that is no work in hand, however long it takes.
            pulse.at = now
            return Phase.READY if beats else Phase.STARTING
        return Phase.STUCK if now - pulse.at > self.patience else Phase.READY

    def age(self, now: float, worker_id: str) -> float:
        """Seconds since the worker was first seen."""
        return now - self._pulses[worker_id].first_seen if worker_id in self._pulses else 0.0

    def keep(self, present: set[str]) -> None:
        """Forgets workers that are gone."""
        for gone in self._pulses.keys() - present:
            del self._pulses[gone]


@dataclass(slots=True)
class Starts:
    """Learns how long workers take, from being asked for to being ready."""

    seconds: float | None = None
    _starting: dict[str, float] = field(default_factory=dict)

    def note(self, instance: str, age: float, phase: Phase) -> None:
        """Looks at one worker; only those count that were seen on their way."""
        if phase is Phase.STARTING:
            self._starting[instance] = age
        elif phase is Phase.READY and self._starting.pop(instance, None) is not None:
            self.seconds = age if self.seconds is None else (1 - _LEARN) * self.seconds + _LEARN * age

    def keep(self, present: set[str]) -> None:
        """Forgets workers that are gone."""
        for gone in self._starting.keys() - present:
            del self._starting[gone]
