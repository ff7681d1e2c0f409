"""Rollouts: how they change, whom they give which version, and when a version is taken back."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.v1.model_pb2 import Model, ModelSpec, ModelVersion
from headrace.v1.rollout_pb2 import PromoteRequest, Rollout, RolloutBounds
from services.common.errors import FailedPrecondition, InvalidArgument
from services.common.outcomes import Outcomes, bucket_of
from services.gateway.routes import Routes
from services.gateway.split import Split, place_of, place_of_nth
from services.registry.rollouts import broken_bound, promoted, rolled_back

NOW = 1_000_000


def promote(current: Rollout | None, version: int, weight: int = 100, *, shadow: bool = False) -> Rollout:
    request = PromoteRequest(name="m", version=version, weight=weight, shadow=shadow)
    return promoted(current, request, [1, 2, 3], NOW)


def state(rollout: Rollout) -> tuple[int, int, int, int]:
    return rollout.stable, rollout.candidate, rollout.weight, rollout.previous


def test_a_version_goes_from_trial_to_stable_and_back() -> None:
    warm = promote(None, 3, 0)
    assert state(warm) == (2, 3, 0, 0)
    canary = promote(warm, 3, 10)
    assert state(canary) == (2, 3, 10, 0)
    full = promote(canary, 3)
    assert state(full) == (3, 0, 0, 2)
    assert state(promote(full, 3)) == (3, 0, 0, 2), "promoting it again changes nothing"
    back = rolled_back(full, "bad", NOW)
    assert state(back) == (2, 0, 0, 0)
    assert [item.revision for item in (warm, canary, full, back)] == [1, 2, 3, 4]
    assert state(rolled_back(canary, "bad", NOW)) == (2, 0, 0, 0)
    with pytest.raises(FailedPrecondition, match="nothing was promoted"):
        rolled_back(back, "again", NOW)
    with pytest.raises(FailedPrecondition, match="beside itself"):
        promote(full, 3, 10)
    with pytest.raises(InvalidArgument, match="0 to 100"):
        promote(full, 2, 101)


def seen(answered: int, failed: int = 0, seconds: float = 0.01) -> Outcomes:
    return Outcomes(failed, {bucket_of(seconds): answered})


@pytest.mark.parametrize(
    ("rollout", "outcomes", "now", "reason"),
    [
        pytest.param(Rollout(stable=1, candidate=2, weight=10), seen(19, 1), NOW, "", id="within bounds"),
        pytest.param(
            Rollout(stable=1, candidate=2, weight=10), seen(18, 2), NOW, "2 of 20 requests failed", id="errors"
        ),
        pytest.param(Rollout(stable=1, candidate=2, weight=10), seen(0, 19), NOW, "", id="too few to say"),
        pytest.param(
            Rollout(stable=1, candidate=2, weight=10, bounds=RolloutBounds(max_p99_ms=5)),
            seen(100),
            NOW,
            "p99 is 10",
            id="too slow",
        ),
        pytest.param(Rollout(stable=1, candidate=2), seen(0, 50), NOW, "", id="no weight, no trial"),
        pytest.param(
            Rollout(stable=2, previous=1, changed_unix_ms=NOW), seen(0, 50), NOW + 1000, "version 2", id="just promoted"
        ),
        pytest.param(
            Rollout(stable=2, previous=1, changed_unix_ms=NOW), seen(0, 50), NOW + 300_000, "", id="promoted long ago"
        ),
        pytest.param(Rollout(stable=2, changed_unix_ms=NOW), seen(0, 50), NOW, "", id="nothing to go back to"),
    ],
)
def test_a_version_is_taken_back_when_it_breaks_its_bounds(
    rollout: Rollout, outcomes: Outcomes, now: int, reason: str
) -> None:
    said = broken_bound(rollout, {2: outcomes}, now)
    assert reason in said
    assert bool(said) == bool(reason)


@given(st.lists(st.floats(0.0002, 60), min_size=1, max_size=300), st.integers(0, 300))
def test_outcomes_add_up_and_their_percentile_is_right_within_a_tenth(latencies: list[float], cut: int) -> None:
    parts = [Outcomes(1, Counter(map(bucket_of, part))) for part in (latencies[:cut], latencies[cut:])]
    both = parts[0].plus(parts[1])
    assert (both.requests, both.failed) == (len(latencies) + 2, 2)
    exact = sorted(latencies)[len(latencies) * 99 // 100] * 1000
    assert exact * 0.999 <= both.p99_ms() <= exact * 1.101


def test_keys_stick_and_a_higher_weight_takes_no_key_from_the_candidate() -> None:
    places = [place_of("m", f"user-{number}") for number in range(5000)]

    def chosen(share: float) -> set[int]:
        split = Split(1, 2, share, shadow=False)
        return {number for number, place in enumerate(places) if split.choose(place)[0] == 2}

    tenth, half = chosen(0.1), chosen(0.5)
    assert tenth < half
    assert 400 < len(tenth) < 600
    assert 2300 < len(half) < 2700
    assert chosen(0.0) == set()
    assert len(chosen(1.0)) == 5000


@given(st.integers(0, 10_000), st.integers(1, 99))
def test_requests_without_a_key_are_dealt_out_evenly(start: int, percent: int) -> None:
    split = Split(1, 2, percent / 100, shadow=False)
    got = sum(split.choose(place_of_nth(number))[0] == 2 for number in range(start, start + 200))
    assert abs(got - 2 * percent) <= 4


def model(**rollout: object) -> Model:
    spec = ModelSpec(runtime="onnx")
    versions = [ModelVersion(name="m", version=number, spec=spec) for number in (1, 2, 3)]
    made = Model(name="m", versions=versions, aliases={"old": 1, "production": 2, "canary": 3})
    if rollout:
        made.rollout.CopyFrom(Rollout(**rollout))  # type: ignore[arg-type] # the fields are the test's to name
    return made


def test_routes_follow_the_rollout_only_where_no_version_is_named() -> None:
    routes = Routes()
    routes.update(model())
    assert routes.pick("m", "", lambda: "k").route.version == 3, "without a rollout: the latest"
    routes.update(model(stable=2, candidate=3, weight=50))
    by_key = {key: routes.pick("m", "", lambda key=key: key).route.version for key in map(str, range(40))}  # type: ignore[misc]
    assert set(by_key.values()) == {2, 3}
    assert by_key == {key: routes.pick("m", "production", lambda key=key: key).route.version for key in by_key}  # type: ignore[misc]
    for version, number in {"1": 1, "3": 3, "old": 1, "latest": 3, "canary": 3}.items():
        assert {routes.pick("m", version, lambda: "").route.version for _ in range(10)} == {number}
    assert routes.resolve("m", "").version == 2, "metadata is that of the stable version"


def test_a_shadow_answers_nobody() -> None:
    routes = Routes()
    routes.update(model(stable=2, candidate=3, weight=100, shadow=True))
    pick = routes.pick("m", "", lambda: "")
    assert pick.route.version == 2
    assert pick.shadow is not None
    assert pick.shadow.version == 3
    routes.update(model(stable=2, candidate=3, weight=0, shadow=True))
    assert routes.pick("m", "", lambda: "").shadow is None
