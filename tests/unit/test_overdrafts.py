"""Who is over his part while others are there, and what rows cost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.worker.batch_cost import BatchCost
from services.worker.batcher import Batcher, Entry
from services.worker.overdrafts import BURST, RECENT, STRETCH, Overdrafts


def used(
    overdrafts: Overdrafts, parts: dict[str, float], until: float, weights: dict[str, float] | None = None
) -> None:
    """Each tenant is given his part of every second, in requests of 10 ms."""
    turn = 0.01
    owed = dict.fromkeys(parts, 0.0)
    for number in range(int(until / turn)):
        for tenant, part in parts.items():
            owed[tenant] += part * turn
            if owed[tenant] >= turn:
                owed[tenant] -= turn
                overdrafts.served(tenant, (weights or {}).get(tenant, 1.0), turn, 1, number * turn)


@pytest.mark.parametrize(
    ("parts", "weights", "over"),
    [
        pytest.param({"a": 1.0}, {}, "", id="alone: all is his"),
        pytest.param({"a": 0.7, "b": 0.1, "c": 0.1}, {}, "a", id="a flood"),
        pytest.param({"a": 0.45, "b": 0.45, "c": 0.05}, {}, "ab", id="two floods"),
        pytest.param({"a": 0.3, "b": 0.3, "c": 0.3}, {}, "", id="all take their parts"),
        pytest.param({"a": 0.15, "b": 0.05}, {}, "", id="there is enough for all"),
        pytest.param({"a": 0.7, "b": 0.1, "c": 0.1}, {"a": 8.0}, "", id="his part is large"),
        pytest.param({"a": 0.5, "b": 0.4}, {"b": 0.25}, "b", id="his part is small"),
    ],
)
def test_who_is_over(parts: dict[str, float], weights: dict[str, float], over: str) -> None:
    overdrafts = Overdrafts()
    used(overdrafts, parts, 20.0, weights)
    assert overdrafts.over(20.0) == set(over)


def test_a_burst_is_forgiven_and_so_is_a_flood_after_a_while() -> None:
    overdrafts = Overdrafts()
    used(overdrafts, {"a": 0.1, "b": 0.1}, 5.0)
    for _ in range(BURST - 2):
        overdrafts.served("a", 1.0, 0.01, 1, 5.0)
    assert not overdrafts.over(5.0)
    for _ in range(BURST):
        overdrafts.served("a", 1.0, 0.01, 1, 5.0)
    assert overdrafts.over(5.0) == {"a"}
    assert not overdrafts.over(6.0)


def test_nobody_is_over_once_the_others_have_left() -> None:
    overdrafts = Overdrafts()
    used(overdrafts, {"flood": 0.9, "quiet": 0.1}, 20.0)
    assert overdrafts.over(20.0) == {"flood"}
    for tenth in range(int(RECENT) * 10 + 2):
        overdrafts.served("flood", 1.0, 0.1, 10, 20 + tenth / 10)
    assert not overdrafts.over(20 + RECENT + 0.2)


@given(
    st.lists(
        st.tuples(st.sampled_from("abcd"), st.sampled_from([0.5, 1.0, 2.0]), st.floats(0, 2), st.floats(0, 4)),
        max_size=100,
    )
)
def test_somebody_is_always_below_his_part(events: list[tuple[str, float, float, float]]) -> None:
    overdrafts, now, seen = Overdrafts(), 0.0, set[str]()
    for tenant, weight, seconds, pause in events:
        now += pause
        overdrafts.served(tenant, weight, seconds, 1, now)
        seen.add(tenant)
        assert overdrafts.over(now) < seen
    assert not overdrafts.over(now + 1000)


@given(
    batch=st.floats(0.001, 1),
    row=st.floats(0, 1),
    sizes=st.lists(st.integers(1, 64), min_size=3, max_size=200).filter(lambda sizes: len(set(sizes)) > 2),
)
def test_the_cost_of_rows_is_found(batch: float, row: float, sizes: list[int]) -> None:
    cost = BatchCost()
    for size in sizes * 3:
        cost.learn(size, batch + row * size)
    assert cost.row == pytest.approx(row, abs=1e-6)
    assert cost.batch == pytest.approx(batch, rel=1e-3, abs=1e-5 * max(sizes))


def test_what_was_learnt_holds_while_all_batches_are_alike() -> None:
    cost = BatchCost()
    for size in range(1, 9):
        cost.learn(size, 0.01 + 0.004 * size)
    for number in range(1000):
        cost.learn(8, 0.042 + 0.001 * (number % 2))
    assert cost.row == pytest.approx(0.004, rel=0.2)
    assert cost.rows_within(STRETCH) == pytest.approx(5, rel=0.4)


def test_batches_of_one_size_say_nothing_of_rows_so_others_are_tried() -> None:
    cost = BatchCost()
    for _ in range(10):
        cost.learn(8, 0.04)
    assert cost.batch == pytest.approx(0.04)
    assert (cost.row, cost.rows_within(STRETCH)) == (0.0, 4)
    cost.learn(4, 0.04)
    assert cost.rows_within(STRETCH) == float("inf")


def flooded(batch_seconds: float, row_seconds: float) -> tuple[Batcher[str], float]:
    """A flood's line, after a while beside somebody else's few requests."""
    line: Batcher[str] = Batcher(8)
    now = 0.0
    for number in range(400):
        for _ in range(8):
            line.add(Entry("flood", 1, None, now, 1e9, tenant="flood"))
        for _ in range(number % 3):
            line.add(Entry("quiet", 1, None, now, 1e9, tenant="quiet"))
        while len(line) > 40:
            batch, _ = line.take(now)
            seconds = batch_seconds + row_seconds * len(batch)
            now += seconds
            line.ran(batch, seconds, now)
    line.clear()
    for _ in range(40):
        line.add(Entry("flood", 1, None, now, 1e9, tenant="flood"))
    return line, now


@pytest.mark.parametrize(
    ("batch_seconds", "row_seconds", "rows"),
    [
        pytest.param(0.04, 0.0, 8, id="rows cost nothing: batches are full"),
        pytest.param(0.01, 0.004, 5, id="both cost: what takes three times an empty batch"),
        pytest.param(0.0, 0.01, 1, id="batches cost nothing: one by one is as good"),
    ],
)
def test_a_flood_fills_batches_only_as_far_as_they_stay_short(
    batch_seconds: float, row_seconds: float, rows: int
) -> None:
    line, now = flooded(batch_seconds, row_seconds)
    alone, _ = line.take(now)
    assert abs(len(alone) - rows) <= 1
    for _ in range(6):
        line.add(Entry("quiet", 1, None, now, 1e9, tenant="quiet"))
    mixed, _ = line.take(now)
    assert sum(entry.tenant == "quiet" for entry in mixed) == 6, "nobody else is held to that"
    assert len(mixed) == (6 if row_seconds else 8)
