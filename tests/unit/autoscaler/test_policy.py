"""The scaling policy along trajectories."""

from dataclasses import replace
from itertools import pairwise
from math import inf

import pytest

from services.autoscaler.policy.config import Limits, Mode, PolicyConfig
from services.autoscaler.policy.decide import Memory, decide
from services.autoscaler.policy.observation import Decision, Demand, Observation
from services.common.errors import InvalidArgument
from tests.unit.autoscaler.trajectory import World, targets

CONFIG = PolicyConfig(Limits(0, 10), scale_down_window=20.0, idle_seconds=15.0, stable_window=20.0)


def seen(backlog: float = 0.0, *, arrived: float = 0.0, ready: int = 0, **more: object) -> Observation:
    return Observation((Demand("q", backlog, arrived, 0.1),), ready, **more)  # type: ignore[arg-type]


def first(observation: Observation, config: PolicyConfig = CONFIG) -> Decision:
    return decide(100.0, observation, Memory(), config)[0]


def test_the_first_request_wakes_a_worker_in_the_very_decision_that_sees_it() -> None:
    asleep, memory = decide(0.0, seen(), Memory(), replace(CONFIG, idle_seconds=0.0))
    assert asleep.target == 0
    decision, _ = decide(0.05, seen(backlog=1), memory, CONFIG)
    assert decision.target == 1
    assert "calls for" in decision.reason or "waking" in decision.reason


def test_a_burst_out_of_silence_gets_enough_workers_before_the_first_is_ready() -> None:
    # 50 requests/s of 0.1 s each keep five workers busy; at 70 % that is 7.1, and the start's backlog is on top.
    decided = targets(World(CONFIG).run(lambda now: 50.0 if now >= 5 else 0.0, 60))
    assert decided[4] <= 1
    assert max(decided[5:9]) >= 7
    assert decided[-1] in (8, 9, 10)


def test_after_a_burst_nobody_leaves_for_the_window_and_then_all_do_step_by_step() -> None:
    decisions = World(CONFIG).run(lambda now: 50.0 if now < 30 else 0.0, 150, workers=8)
    decided = targets(decisions)
    assert min(decided[30:49]) == max(decided[30:49])
    falling = decided[50:]
    assert falling == sorted(falling, reverse=True)
    assert falling[-1] == 0
    # Each step halves at most, and the last worker leaves alone.
    steps = [before - after for before, after in pairwise(falling) if before != after]
    assert len(steps) >= 3
    assert steps[-1] == 1


def test_a_burst_is_remembered_while_traffic_goes_on_and_fades() -> None:
    config = replace(CONFIG, burst_half_life=60.0, scale_down_window=5.0)
    decided = targets(World(config).run(lambda now: 60.0 if 20 <= now < 40 else 1.0, 400, workers=1))
    # 60 requests/s keep six workers busy; half of that is called for a half-life later, and 1/s calls for one.
    assert decided[90] >= 3
    assert decided[90] > decided[160] > decided[399] == 1


def test_a_job_gets_workers_for_what_waits_outside_and_no_more_than_its_time_asks_for() -> None:
    """10,000 requests of 0.1 s, of which gateways have 128 at a time."""

    def after_a_minute(jobs_seconds: float, jobs: float) -> int:
        memory, config = Memory(), replace(CONFIG, jobs_seconds=jobs_seconds)
        for second in range(60):
            demand = Demand("q", 128.0, 128.0, 0.1, jobs)
            decision, memory = decide(float(second), Observation((demand,), ready=3), memory, config)
        return decision.target

    assert after_a_minute(300.0, 0.0) <= 1
    assert 3 <= after_a_minute(300.0, 9872.0) <= 5
    assert after_a_minute(100.0, 9872.0) == CONFIG.limits.most


def test_a_worker_that_crashed_is_replaced_while_nobody_may_leave_and_when_it_is_needed() -> None:
    memory = Memory()
    for second in range(5):
        decision, memory = decide(float(second), seen(arrived=50.0 * second, ready=8), memory, CONFIG)
    before = decision.target
    decision, _ = decide(5.0, seen(arrived=250.0, ready=7), memory, CONFIG)
    assert decision.target == before == 8


def test_a_burst_is_a_panic_and_in_a_panic_nobody_leaves() -> None:
    config = replace(CONFIG, scale_down_window=0.0, burst_half_life=5.0)
    decisions = World(config).run(lambda now: 60.0 if 5 <= now < 10 else 1.0, 60, workers=1)
    burst = [decision for decision in decisions if decision.panic]
    assert burst
    panicking = targets(burst)
    assert panicking == sorted(panicking)
    assert targets(decisions)[-1] == 1


@pytest.mark.parametrize("age", [6.0, 3600.0, inf])
def test_signals_that_are_old_or_missing_let_nobody_leave(age: float) -> None:
    _, memory = decide(0.0, seen(arrived=0.0, ready=6), Memory(), CONFIG)
    for second in range(1, 600):
        decision, memory = decide(float(second), seen(ready=6, age=age), memory, CONFIG)
        assert decision.target == 6
    assert "signals are" in decision.reason


def test_a_fresh_memory_lets_nobody_leave_until_it_has_watched_for_a_window() -> None:
    memory, decided = Memory(), []
    for second in range(40):
        decision, memory = decide(float(second), seen(ready=5), memory, CONFIG)
        decided.append(decision.target)
    assert set(decided[:20]) == {5}
    assert decided[-1] < 5


def test_the_learned_start_up_time_is_the_lead() -> None:
    # 20 requests/s on one worker that can do 10: the longer a start, the more will wait when the new ones are there.
    def after(start_seconds: float) -> int:
        memory = Memory()
        for second in range(10):
            observation = seen(10.0 * second, arrived=20.0 * second, ready=1, start_seconds=start_seconds)
            decision, memory = decide(float(second), observation, memory, CONFIG)
        return decision.target

    assert after(1.0) < after(10.0) < after(30.0) == 10


def test_workers_that_start_count_for_what_they_will_have_done() -> None:
    waiting = [seen(200.0, ready=1, starting=since, start_seconds=10.0) for since in ((0.0, 0.0), (9.0, 9.0))]
    young, old = (decide(0.0, observation, Memory(), CONFIG)[0].needed for observation in waiting)
    assert young > old == 0.0


def test_the_number_grows_no_faster_than_it_may() -> None:
    config = replace(CONFIG, limits=Limits(0, 100), up_workers=2, up_factor=2.0, up_period=10.0)
    decided = targets(World(config).run(lambda now: 1000.0, 45))
    # At most 2 more or twice as many within any ten seconds.
    for at, target in enumerate(decided[10:], 10):
        assert target <= max(2 * min(decided[at - 9 : at + 1]), min(decided[at - 9 : at + 1]) + 2)
    assert decided[-1] > decided[0] > 0


@pytest.mark.parametrize(
    ("mode", "target", "workers"),
    [(Mode.QUEUE_LENGTH, 20.0, 3), (Mode.ONGOING_REQUESTS, 20.0, 3), (Mode.MESSAGE_RATE, 10.0, 2)],
)
def test_modes_that_others_know(mode: Mode, target: float, workers: int) -> None:
    config = replace(CONFIG, mode=mode, target=target)
    memory = Memory()
    # 60 requests accepted and unanswered, all along; 20 more arrive each second.
    for second in range(60):
        observation = seen(60.0, arrived=20.0 * second, ready=1)
        decision, memory = decide(float(second), observation, memory, config)
    assert decision.target == workers


def test_unacknowledged_work_counts_so_that_busy_workers_stay() -> None:
    """keda#5050: nothing waits, everything runs."""
    config = replace(CONFIG, mode=Mode.QUEUE_LENGTH, target=1.0, scale_down_window=0.0)
    memory = Memory()
    for second in range(30):
        decision, memory = decide(float(second), seen(4.0, ready=4), memory, config)
    assert decision.target == 4


def test_limits_that_make_no_sense_are_refused() -> None:
    with pytest.raises(InvalidArgument, match=r"limits 5\.\.2: expected"):
        Limits(5, 2)
    with pytest.raises(InvalidArgument, match="utilisation is 0"):
        PolicyConfig(utilisation=0)
    with pytest.raises(InvalidArgument, match="drain_seconds is -1"):
        PolicyConfig(drain_seconds=-1)
