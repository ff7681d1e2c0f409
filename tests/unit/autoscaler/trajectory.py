"""Runs the policy along a made-up course of events: what was observed second by second, what was decided."""

from collections.abc import Callable
from dataclasses import dataclass

from services.autoscaler.policy.config import PolicyConfig
from services.autoscaler.policy.decide import Memory, decide
from services.autoscaler.policy.observation import Decision, Demand, Observation

SERVICE_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class World:
    """A toy: requests flow in at `rate`, each ready worker does 1 / SERVICE_SECONDS of them a second.

    Workers are ready `start_seconds` after they were decided on, and leave at once.
    """

    config: PolicyConfig
    start_seconds: float = 3.0

    def run(self, rate: Callable[[float], float], seconds: float, *, workers: int = 0) -> list[Decision]:
        """One decision a second."""
        memory, backlog, arrived, decisions = Memory(), 0.0, 0.0, list[Decision]()
        ready, starting = workers, list[float]()
        for tick in range(int(seconds)):
            now = float(tick)
            arrived += rate(now)
            done = min(backlog + rate(now), ready / SERVICE_SECONDS)
            backlog += rate(now) - done
            ready += sum(now - begun >= self.start_seconds for begun in starting)
            starting = [begun for begun in starting if now - begun < self.start_seconds]
            observation = Observation(
                # What runs counts, too: `done` requests a second of SERVICE_SECONDS each.
                (Demand("q", backlog + done * SERVICE_SECONDS, arrived, SERVICE_SECONDS),),
                ready,
                tuple(now - begun for begun in starting),
                start_seconds=self.start_seconds,
            )
            decision, memory = decide(now, observation, memory, self.config)
            decisions.append(decision)
            missing = decision.target - ready - len(starting)
            starting += [now] * max(0, missing)
            for _ in range(max(0, -missing)):
                if starting:
                    starting.pop()
                else:
                    ready -= 1
        return decisions


def targets(decisions: list[Decision]) -> list[int]:
    """The numbers alone."""
    return [decision.target for decision in decisions]
