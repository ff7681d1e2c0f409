"""What leaves the worker's memory for what: by table, by laws, and against an LRU cache written the plain way."""

from collections import OrderedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.worker.placement import Plan, Resident, keep_until, make_room, overdue

NOW = 100.0


def resident(name: str, size: int = 10, used: float = 0.0, keep: float = 0.0, **flags: bool) -> Resident:
    return Resident((name, 1), size, used, keep, **flags)


def leaving(plan: Plan) -> str:
    return "".join(name for name, _ in plan.evict)


@pytest.mark.parametrize(
    ("need", "budget", "residents", "evicted"),
    [
        pytest.param(10, 0, [resident("a", 10**12)], "", id="no budget, no limit"),
        pytest.param(10, 20, [resident("a")], "", id="there is room"),
        pytest.param(10, 20, [resident("a", used=2), resident("b", used=1)], "b", id="the least recently used goes"),
        pytest.param(20, 20, [resident("a", used=2), resident("b", used=1)], "ba", id="as many as it takes"),
        pytest.param(
            10, 20, [resident("a", used=2), resident("b", used=1, pinned=True)], "a", id="what has work in hand stays"
        ),
        pytest.param(
            10, 20, [resident("a", used=2), resident("b", used=1, keep=101)], "a", id="what came a moment ago stays"
        ),
        pytest.param(
            15, 30, [resident("a", 5, 1), resident("b", 20, 2), resident("c", 5, 3)], "b", id="small ones are spared"
        ),
        pytest.param(10, 20, [resident("a", 30, 1)], "a", id="over budget already, as after a model grew"),
    ],
)
def test_room_is_made_by(need: int, budget: int, residents: list[Resident], evicted: str) -> None:
    plan = make_room(need, residents, budget=budget, now=NOW)
    assert plan.fits
    assert leaving(plan) == evicted


def test_what_can_never_fit_is_told_apart_from_what_cannot_now() -> None:
    assert make_room(30, [], budget=20, now=NOW).never
    busy = [resident("a", pinned=True), resident("b", keep=107), resident("c", 0, keep=103)]
    plan = make_room(15, busy, budget=20, now=NOW)
    assert (plan.fits, plan.never, plan.evict, plan.retry_at) == (False, False, (), 103)
    assert make_room(15, busy[:1], budget=20, now=NOW).retry_at is None


def test_a_young_one_whose_turn_it_is_to_leave_is_waited_for() -> None:
    """Passing it over would evict what is asked for more often."""
    held = [resident("young", used=1, keep=100.5), resident("hot", used=2)]
    plan = make_room(10, held, budget=20, now=NOW, patience=1.0)
    assert (plan.fits, plan.retry_at) == (False, 100.5)
    assert leaving(make_room(10, held, budget=20, now=100.5, patience=0.5)) == "young"
    assert leaving(make_room(10, held, budget=20, now=NOW, patience=0.4)) == "hot", "too young to wait for"


def test_a_model_is_kept_for_as_long_as_its_load_was_worth() -> None:
    assert keep_until(NOW, load_seconds=0.1, minimum=1.0) == 101
    assert keep_until(NOW, load_seconds=30.0, minimum=1.0) == 160
    assert keep_until(NOW, load_seconds=30.0, minimum=0.0) == NOW


def test_only_versions_that_nothing_names_go_for_idleness() -> None:
    old = [
        resident("named", used=0),
        resident("drained", used=0, wanted=False),
        resident("asked", used=95, wanted=False),
        resident("working", used=0, wanted=False, pinned=True),
        resident("fresh", used=0, keep=101, wanted=False),
    ]
    assert overdue(old, idle=60, now=NOW) == [("drained", 1)]


RESIDENTS = st.lists(
    st.builds(
        Resident,
        key=st.tuples(st.text("abcdef", min_size=4, max_size=4), st.just(1)),
        size=st.integers(1, 50),
        used_at=st.floats(0, 100),
        keep_until=st.floats(50, 150),
        pinned=st.booleans(),
    ),
    max_size=12,
    unique_by=lambda item: item.key,
)


@given(need=st.integers(1, 200), budget=st.integers(1, 200), residents=RESIDENTS)
def test_laws_of_eviction(need: int, budget: int, residents: list[Resident]) -> None:
    plan = make_room(need, residents, budget=budget, now=NOW)
    evicted = [item for item in residents if item.key in plan.evict]
    assert all(not item.pinned and item.keep_until <= NOW for item in evicted)
    left = sum(item.size for item in residents) - sum(item.size for item in evicted)
    movable = sum(item.size for item in residents if not item.pinned and item.keep_until <= NOW)
    if plan.fits:
        assert left + need <= budget
        assert all(left + item.size + need > budget for item in evicted), "nobody leaves in vain"
    else:
        assert not evicted
        assert plan.never or sum(item.size for item in residents) - movable + need > budget


@given(st.lists(st.integers(0, 9), max_size=200), st.integers(1, 6))
def test_equal_models_without_pressure_are_an_lru_cache(asked: list[int], capacity: int) -> None:
    plain: OrderedDict[int, None] = OrderedDict()
    held: dict[int, float] = {}
    for now, model in enumerate(asked):
        if model in plain:
            plain.move_to_end(model)
        else:
            plain[model] = None
            if len(plain) > capacity:
                plain.popitem(last=False)
        if model not in held:
            snapshot = [Resident((str(name), 1), 1, used, 0.0) for name, used in held.items()]
            for name, _ in make_room(1, snapshot, budget=capacity, now=now).evict:
                del held[int(name)]
        held[model] = now
        assert held.keys() == plain.keys()
