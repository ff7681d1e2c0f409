"""Runs of one trace under different scalers, and which plain run is the fair one to compare with."""

from collections.abc import Iterable
from dataclasses import dataclass

from benchmarks.autoscaling.arrivals import Arrival
from benchmarks.autoscaling.scalers import Fixed, Ours, QueueLength
from benchmarks.autoscaling.simulator import Machine, Outcome, Simulation
from services.autoscaler.policy.config import Limits, PolicyConfig

LATE_SECONDS = 5.0
# The defaults of KEDA and Kubernetes first, then what an operator may turn.
PLAIN_WINDOWS = (300.0, 120.0, 60.0)
PLAIN_TARGETS = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 8.0, 16.0, 32.0)


@dataclass(frozen=True, slots=True)
class Run:
    """One simulated hour under one scaler."""

    name: str
    outcome: Outcome

    @property
    def cost(self) -> float:
        """Worker-seconds."""
        return self.outcome.worker_seconds

    @property
    def late(self) -> int:
        """Requests over LATE_SECONDS."""
        return self.outcome.late(LATE_SECONDS)

    @property
    def p99(self) -> float:
        """Seconds."""
        return self.outcome.percentile(0.99)


def ours(arrivals: list[Arrival], machine: Machine, most: int) -> Run:
    """The policy as it comes, but for the limits and, as KEDA's cooldown has it, 300 s without traffic before zero."""
    config = PolicyConfig(Limits(0, most), idle_seconds=300.0)
    return Run("Headrace", Simulation(arrivals, Ours(config), machine).run())


def plain(arrivals: list[Arrival], machine: Machine, most: int) -> list[Run]:
    """Queue-length scaling, over targets and scale-down windows."""
    return [
        Run(
            f"queue length {target:g}, window {window:.0f} s",
            Simulation(arrivals, QueueLength(target, most, window), machine).run(),
        )
        for window in PLAIN_WINDOWS
        for target in PLAIN_TARGETS
    ]


def fixed(arrivals: list[Arrival], machine: Machine, workers: int) -> Run:
    """The same number all hour, ready from the start."""
    return Run(f"{workers} all hour", Simulation(arrivals, Fixed(workers), machine, workers=workers).run())


def at_equal_cost(run: Run, runs: Iterable[Run]) -> Run:
    """The one with the fewest late requests among those that cost no more than 5 % over `run`, or the cheapest."""
    runs = list(runs)
    affordable = [other for other in runs if other.cost <= run.cost * 1.05]
    return min(affordable, key=lambda other: other.late) if affordable else min(runs, key=lambda other: other.cost)


def fewest_fixed(run: Run, arrivals: list[Arrival], machine: Machine, most: int) -> Run:
    """The smallest number that, all hour, reaches the same p99: who picks it has seen the whole hour before."""
    return next(
        other
        for workers in range(1, most + 1)
        if (other := fixed(arrivals, machine, workers)).p99 <= run.p99 or workers == most
    )
