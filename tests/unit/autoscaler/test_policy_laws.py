"""What holds of the scaling policy whatever happens."""

from dataclasses import replace
from math import ceil, inf

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.autoscaler.policy.config import Limits, Mode, PolicyConfig
from services.autoscaler.policy.decide import Memory, decide
from services.autoscaler.policy.observation import Demand, Observation
from tests.unit.autoscaler.trajectory import World, targets

configs = st.builds(
    PolicyConfig,
    limits=st.builds(lambda least, more: Limits(least, max(1, least + more)), st.integers(0, 5), st.integers(0, 20)),
    mode=st.sampled_from(Mode),
    target=st.floats(0.5, 50),
    drain_seconds=st.floats(0.1, 60),
    utilisation=st.floats(0.1, 1.0),
    stable_window=st.floats(10, 120),
    panic_window=st.floats(1, 10),
    panic_threshold=st.floats(1, 10),
    scale_down_window=st.floats(0, 120),
    idle_seconds=st.floats(0, 120),
    up_factor=st.floats(1, 10),
    up_workers=st.integers(1, 10),
    down_factor=st.floats(0, 0.9),
)
demands = st.builds(
    Demand,
    queue=st.sampled_from("abc"),
    backlog=st.floats(0, 1e4),
    arrived=st.floats(0, 1e6),
    service_seconds=st.none() | st.floats(1e-4, 10),
)
observations = st.builds(
    Observation,
    demands=st.lists(demands, max_size=3, unique_by=lambda demand: demand.queue).map(tuple),
    ready=st.integers(0, 25),
    starting=st.lists(st.floats(0, 60), max_size=5).map(tuple),
    age=st.sampled_from([0.0, 1.0, 100.0, inf]),
    start_seconds=st.none() | st.floats(0, 60),
)
# A machine with much else to do draws slowly; that says nothing of the policy.
unhurried = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
courses = st.lists(st.tuples(st.floats(0.05, 30), observations), min_size=1, max_size=25)


@given(configs, courses)
@unhurried
def test_decisions_stay_within_the_limits_and_say_why(
    config: PolicyConfig, course: list[tuple[float, Observation]]
) -> None:
    now, memory = 0.0, Memory()
    for pause, observation in course:
        now += pause
        decision, memory = decide(now, observation, memory, config)
        assert config.limits.least <= decision.target <= config.limits.most
        assert decision.reason


@given(configs, courses)
@unhurried
def test_nobody_leaves_on_signals_that_are_stale(config: PolicyConfig, course: list[tuple[float, Observation]]) -> None:
    now, memory, last = 0.0, Memory(), 0
    for pause, observation in course:
        now += pause
        decision, memory = decide(now, observation, memory, config)
        if observation.age > config.stale_seconds:
            assert decision.target >= min(max(last, observation.workers), config.limits.most)
        last = decision.target


@given(configs, courses, st.floats(0, 1e4))
@unhurried
def test_more_backlog_never_means_fewer_workers(
    config: PolicyConfig, course: list[tuple[float, Observation]], more: float
) -> None:
    now, memory = 0.0, Memory()
    for pause, observation in course[:-1]:
        now += pause
        _, memory = decide(now, observation, memory, config)
    now += course[-1][0]
    observation = replace(course[-1][1], demands=(*course[-1][1].demands, Demand("z", 1.0, 5.0, 0.1)))
    longer = replace(observation, demands=(*observation.demands[:-1], Demand("z", 1.0 + more, 5.0, 0.1)))
    assert decide(now, longer, memory, config)[0].target >= decide(now, observation, memory, config)[0].target


@given(configs, st.integers(1, 10_000))
@unhurried
def test_waiting_requests_always_have_a_worker(config: PolicyConfig, backlog: int) -> None:
    decision, _ = decide(1.0, Observation((Demand("q", backlog, backlog, 0.01),)), Memory(), config)
    assert decision.target >= 1


@given(
    st.floats(0.5, 60), st.sampled_from([(Mode.DRAIN_TIME, 1), (Mode.MESSAGE_RATE, 5), (Mode.ONGOING_REQUESTS, 0.7)])
)
@settings(deadline=None, max_examples=15)
def test_a_constant_load_gets_a_constant_number(rate: float, mode: tuple[Mode, float]) -> None:
    """A target over what a worker really runs at once (1 in this world) would let the number swing: see Mode."""
    config = PolicyConfig(Limits(0, 20), mode=mode[0], target=mode[1], scale_down_window=30.0, stable_window=30.0)
    decided = targets(World(config).run(lambda now: rate, 400))
    assert len(set(decided[-150:])) == 1


@given(st.floats(1, 40), st.floats(0, 20))
@settings(deadline=None, max_examples=10)
def test_drain_time_gives_a_steady_load_the_capacity_it_needs(rate: float, start_seconds: float) -> None:
    config = PolicyConfig(Limits(0, 20), scale_down_window=30.0, stable_window=30.0)
    decided = targets(World(config, start_seconds).run(lambda now: rate, 400))
    needed = rate * 0.1 / config.utilisation
    # Measured demand ripples: next to a whole number it may ask for one worker more.
    assert needed - 1e-6 <= decided[-1] <= ceil(needed) + 1
