"""Who decides in a simulation: our policy, plain queue-length scaling as KEDA and Kubernetes do it, a fixed number."""

from dataclasses import dataclass, field
from math import ceil

from services.autoscaler.policy.config import PolicyConfig
from services.autoscaler.policy.decide import Memory, decide
from services.autoscaler.policy.observation import Observation
from services.autoscaler.policy.windows import Peaks


@dataclass(slots=True)
class Ours:
    """The policy that production runs."""

    config: PolicyConfig
    interval: float = 1.0
    wakes: bool = True
    _memory: Memory = field(default_factory=Memory)

    def target(self, now: float, observation: Observation) -> int:
        """As `decide` says."""
        decision, self._memory = decide(now, observation, self._memory, self.config)
        return decision.target


@dataclass(slots=True)
class QueueLength:
    """KEDA's queue length on Kubernetes' HorizontalPodAutoscaler, defaults as documented.

    The HPA looks each 15 s: ceil(length / target), nothing within 10 % of the present; at most twice as many or four
    more at a time; fewer only as many as the highest number called for in `down_window` (300 s). KEDA takes the first
    replica up when it sees a message and the last one down `cooldown` after the last.
    """

    per_worker: float
    most: int
    down_window: float = 300.0
    cooldown: float = 300.0
    interval: float = 15.0
    wakes: bool = False
    _peaks: Peaks = field(default_factory=Peaks)
    _active_at: float = 0.0
    _present: int = 0

    def target(self, now: float, observation: Observation) -> int:
        """Unacknowledged messages count, as KEDA counts them over RabbitMQ's management API."""
        if observation.backlog:
            self._active_at = now
        wanted = min(self.most, ceil(observation.backlog / self.per_worker))
        if self._present and abs(observation.backlog / self.per_worker / self._present - 1) <= 0.1:
            wanted = self._present
        wanted = min(max(wanted, 1), max(2 * self._present, self._present + 4))
        self._peaks = self._peaks.add(now, wanted, self.down_window)
        if wanted < self._present:
            wanted = min(self._present, self._peaks.highest())
        if now - self._active_at > self.cooldown or not (self._present or observation.backlog):
            wanted = 0
        elif not self._present:
            wanted = 1
        self._present = wanted
        return wanted


@dataclass(slots=True)
class Fixed:
    """The same number all the time."""

    workers: int
    interval: float = 1e9
    wakes: bool = False

    def target(self, now: float, observation: Observation) -> int:
        """That number."""
        return self.workers
