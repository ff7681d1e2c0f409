"""Between what the signals call for and what is done: nobody leaves too early, nothing changes too fast. Pure.

Each guard takes a proposal and the present number of workers, and returns the proposal or a milder one.
"""

from dataclasses import dataclass
from math import ceil

from services.autoscaler.policy.config import PolicyConfig
from services.autoscaler.policy.memory import Memory


@dataclass(frozen=True, slots=True)
class Proposal:
    """A number of workers and what speaks for it."""

    workers: int
    reason: str

    def but(self, workers: int, why: str) -> "Proposal":
        """Another number, and why it is not the one called for."""
        return Proposal(workers, f"{self.reason}; {why}")


def hold(proposal: Proposal, present: int, now: float, memory: Memory, config: PolicyConfig) -> Proposal:
    """Fewer workers only when nothing speaks for them any more."""
    if proposal.workers >= present:
        return proposal
    if memory.panics(now):
        return proposal.but(present, "the burst is not over, nobody leaves")
    watched = now - (now if memory.since is None else memory.since)
    if watched < config.scale_down_window:
        return proposal.but(present, f"watched for {watched:.0f} s only, nobody leaves yet")
    if (highest := min(present, memory.wanted.highest())) > proposal.workers:
        return proposal.but(highest, f"{highest} were called for within {config.scale_down_window:.0f} s")
    return proposal


def limit_rate(proposal: Proposal, present: int, now: float, memory: Memory, config: PolicyConfig) -> Proposal:
    """Not too many more, not too many fewer, within a period. The first worker always comes at once."""
    if proposal.workers > present:
        lowest = min([present, *(said for at, said in memory.targets if at > now - config.up_period)])
        most = max(ceil(lowest * config.up_factor), lowest + config.up_workers, present, 1)
        if proposal.workers > most:
            return proposal.but(most, f"at most {most} within {config.up_period:.0f} s")
    elif proposal.workers < present:
        highest = max([present, *(said for at, said in memory.targets if at > now - config.down_period)])
        # The last one leaves alone.
        fewest = 0 if highest == 1 else max(1, min(int(highest * config.down_factor), highest - 1))
        if proposal.workers < fewest:
            return proposal.but(min(fewest, present), f"at least {fewest} for {config.down_period:.0f} s")
    return proposal


def limit_number(proposal: Proposal, config: PolicyConfig) -> Proposal:
    """Within what the operator set."""
    limits = config.limits
    clamped = limits.clamp(proposal.workers)
    return proposal if clamped == proposal.workers else proposal.but(clamped, f"limits {limits.least}..{limits.most}")
