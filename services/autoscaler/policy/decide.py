"""The decision: `decide(now, observation, memory, config)`. Pure; the simulator and the service run this very function.

What was learned where: the panic window, and that nobody leaves in a panic, from Knative (pkg/autoscaler/scaling/
autoscaler.go); limits to the rate of change and the window before scale-down from Kubernetes' HorizontalPodAutoscaler;
the first worker at once, past every delay, from Ray Serve (python/ray/serve/autoscaling_policy.py); modes from KEDA's
RabbitMQ scaler.
"""

from dataclasses import replace
from math import ceil

from services.autoscaler.policy.config import Mode, PolicyConfig
from services.autoscaler.policy.guards import Proposal, hold, limit_number, limit_rate
from services.autoscaler.policy.memory import Memory
from services.autoscaler.policy.need import need
from services.autoscaler.policy.observation import Decision, Observation
from services.autoscaler.policy.windows import Sums

__all__ = ["Memory", "decide"]


def decide(now: float, observation: Observation, memory: Memory, config: PolicyConfig) -> tuple[Decision, Memory]:
    """How many workers there should be from now on.

    Args:
        now: seconds on any clock that never goes back.

    Returns:
        The decision, and the memory for the next call.
    """
    # What was decided last is the state to keep, not what is there: so a worker that crashed is replaced.
    present = memory.targets[-1][1] if memory.targets else observation.workers
    if memory.since is None:
        memory = replace(memory, since=now, active_at=now)
    if observation.age > config.stale_seconds:
        kept = Proposal(max(present, observation.workers), f"signals are {_age(observation.age)}: nobody leaves")
        return _decided(now, limit_number(kept, config), 0.0, memory, config)
    memory = _observe(now, observation, memory, config)
    stable, burst = (
        need(observation, memory.history.over(window), config) for window in (config.stable_window, config.panic_window)
    )
    if burst >= config.panic_threshold * max(1, present):
        memory = replace(memory, panic_until=now + config.stable_window)
    needed, why = (max(stable, burst), "burst") if memory.panics(now) else (stable, "load")
    if config.mode is Mode.DRAIN_TIME and _active(now, memory, config) and memory.burst_load > needed:
        needed, why = memory.burst_load, "the last burst"
    proposal = _at_least_one(
        now, Proposal(_whole(needed), f"{why} calls for {needed:.1f}"), observation, memory, config
    )
    memory = replace(memory, wanted=memory.wanted.add(now, proposal.workers, config.scale_down_window))
    proposal = hold(proposal, present, now, memory, config)
    proposal = limit_rate(proposal, present, now, memory, config)
    return _decided(now, limit_number(proposal, config), needed, memory, config)


def _whole(needed: float) -> int:
    """Rounded up; sums of many floats say 3.0000000001 for three."""
    return ceil(needed - 1e-6)


def _active(now: float, memory: Memory, config: PolicyConfig) -> bool:
    return memory.active_at is not None and now - memory.active_at < config.idle_seconds


def _at_least_one(
    now: float, proposal: Proposal, observation: Observation, memory: Memory, config: PolicyConfig
) -> Proposal:
    """While anything waits or came lately."""
    if proposal.workers:
        return proposal
    if observation.backlog:
        return proposal.but(1, "requests wait" if observation.workers else "a request waits: waking")
    if observation.workers and _active(now, memory, config):
        return proposal.but(1, f"one stays until nothing came for {config.idle_seconds:.0f} s")
    return proposal


def _decided(
    now: float, proposal: Proposal, needed: float, memory: Memory, config: PolicyConfig
) -> tuple[Decision, Memory]:
    """The decision; its target is remembered for as long as the limits to the rate of change look back."""
    keep = max(config.up_period, config.down_period)
    targets = (*(entry for entry in memory.targets if entry[0] > now - keep), (now, proposal.workers))
    decision = Decision(proposal.workers, proposal.reason, needed, memory.panics(now))
    return decision, replace(memory, targets=targets)


def _age(age: float) -> str:
    return "missing" if age == float("inf") else f"{age:.0f} s old"


def _observe(now: float, observation: Observation, memory: Memory, config: PolicyConfig) -> Memory:
    """Adds what arrived since the last look to the sums."""
    last = memory.history.sums[-1] if memory.history.sums else Sums(now)
    came = {
        demand.queue: max(0.0, demand.arrived - memory.arrived.get(demand.queue, demand.arrived))
        for demand in observation.demands
    }
    seconds = {demand.queue: demand.service_seconds or config.service_seconds for demand in observation.demands}
    sums = Sums(
        at=now,
        requests=last.requests + sum(came.values()),
        work=last.work + sum(came[queue] * seconds[queue] for queue in came),
        backlog_seconds=last.backlog_seconds + observation.backlog * (now - last.at),
    )
    history = memory.history.add(sums, config.stable_window)
    faded = memory.burst_load * 0.5 ** ((now - last.at) / config.burst_half_life)
    return replace(
        memory,
        history=history,
        burst_load=max(faded, history.over(config.panic_window).load),
        arrived={demand.queue: demand.arrived for demand in observation.demands},
        active_at=now if observation.backlog or any(came.values()) else memory.active_at,
    )
