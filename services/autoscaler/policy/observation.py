"""What the policy sees, and what it decides. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Demand:
    """One queue: what callers want of one model version.

    Attributes:
        backlog: requests accepted and not answered, whether they wait or run. Expired ones do not count.
        arrived: requests accepted since some fixed moment; only differences matter, and it never falls.
        service_seconds: how long a worker is busy for one request when it runs full batches; None: not measured yet.
        jobs: requests of jobs that wait where gateways do not see them: nobody waits for them, so they are no backlog.
    """

    queue: str
    backlog: float
    arrived: float
    service_seconds: float | None = None
    jobs: float = 0.0


@dataclass(frozen=True, slots=True)
class Observation:
    """The system at one moment.

    Attributes:
        demands: every queue. A queue that is missing has no backlog.
        ready: workers that make progress or could. Draining and stuck ones do not count.
        starting: for each worker on its way, seconds since it was asked for.
        age: seconds since the signals were true; infinite where some are missing.
        start_seconds: how long workers take to start, as learned; None: not known yet.
    """

    demands: tuple[Demand, ...] = ()
    ready: int = 0
    starting: tuple[float, ...] = ()
    age: float = 0.0
    start_seconds: float | None = None

    @property
    def workers(self) -> int:
        """Ready and starting."""
        return self.ready + len(self.starting)

    @property
    def backlog(self) -> float:
        """Over all queues."""
        return sum(demand.backlog for demand in self.demands)


@dataclass(frozen=True, slots=True)
class Decision:
    """How many workers there are to be, and why.

    Attributes:
        needed: what the signals alone call for, before limits and windows; not rounded.
        panic: a burst is on: nobody leaves.
    """

    target: int
    reason: str
    needed: float = 0.0
    panic: bool = False
