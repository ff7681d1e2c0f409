"""The micro-batcher: what is taken when, and with whom."""

from collections.abc import Hashable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.worker.batcher import Batcher, Entry


def entry(
    name: str,
    rows: int = 1,
    shape: Hashable = None,
    arrived: float = 0.0,
    deadline: float = 100.0,
    *,
    background: bool = False,
) -> Entry[str]:
    return Entry(name, rows, shape, arrived, deadline, background=background)


def batcher(max_rows: int, *entries: Entry[str], max_delay: float = 0.0) -> Batcher[str]:
    line: Batcher[str] = Batcher(max_rows, max_delay)
    for item in entries:
        line.add(item)
    return line


def names(entries: list[Entry[str]]) -> str:
    return "".join(item.item for item in entries)


@pytest.mark.parametrize(
    ("max_rows", "entries", "batches"),
    [
        pytest.param(4, [], [], id="nothing waits"),
        pytest.param(4, [entry("a")], ["a"], id="a lone request runs at once"),
        pytest.param(4, [entry(name) for name in "abcdef"], ["abcd", "ef"], id="as many as fit"),
        pytest.param(4, [entry("a", 3), entry("b", 2), entry("c", 1)], ["ac", "b"], id="a smaller one fills the gap"),
        pytest.param(0, [entry("a"), entry("b")], ["a", "b"], id="no batch axis: each alone"),
        pytest.param(1, [entry("a"), entry("b")], ["a", "b"], id="batches of one"),
        pytest.param(4, [entry("a"), entry("b", 9), entry("c")], ["ac", "b"], id="larger than a batch: alone"),
        pytest.param(
            4, [entry("a", shape=1), entry("b", shape=2), entry("c", shape=1)], ["ac", "b"], id="shapes never mix"
        ),
    ],
)
def test_batches(max_rows: int, entries: list[Entry[str]], batches: list[str]) -> None:
    line = batcher(max_rows, *(entry(e.item, e.rows, e.shape) for e in entries))
    taken = []
    while len(line):
        batch, dropped = line.take(1.0)
        assert not dropped
        taken.append(names(batch))
    assert taken == batches
    assert line.take(1.0) == ([], [])


def test_the_expired_and_the_cancelled_are_dropped_when_their_turn_comes() -> None:
    left, late = entry("b"), entry("c", deadline=1.0)
    line = batcher(8, entry("a"), left, late, entry("d"))
    left.cancelled = True
    batch, dropped = line.take(1.0)
    assert (names(batch), names(dropped)) == ("ad", "bc")


def test_only_the_abandoned_wait() -> None:
    line = batcher(8, entry("a", deadline=1.0))
    assert [names(part) for part in line.take(2.0)] == ["", "a"]
    assert line.ready_at() is None


@pytest.mark.parametrize(
    ("max_delay", "rows", "ready_at"),
    [
        pytest.param(0.0, [1], 5.0, id="work-conserving: at once"),
        pytest.param(0.5, [1], 5.5, id="may wait for company"),
        pytest.param(0.5, [2, 2], 5.0, id="a full batch does not wait"),
    ],
)
def test_when_the_next_batch_runs(max_delay: float, rows: list[int], ready_at: float) -> None:
    entries = [entry(str(index), count, arrived=5.0) for index, count in enumerate(rows)]
    assert batcher(4, *entries, max_delay=max_delay).ready_at() == ready_at


def test_a_deadline_before_the_delay_is_over_does_not_wait_in_vain() -> None:
    line = batcher(4, entry("a", arrived=5.0, deadline=5.2), max_delay=0.5)
    ready_at = line.ready_at()
    assert ready_at is not None
    assert ready_at < 5.2
    assert names(line.take(ready_at)[0]) == "a"


def test_a_model_without_batch_axis_never_waits_for_company() -> None:
    assert batcher(0, entry("a", arrived=5.0), max_delay=0.5).ready_at() == 5.0


@given(
    max_rows=st.integers(0, 8),
    entries=st.lists(
        st.tuples(st.integers(1, 10), st.integers(0, 2), st.booleans(), st.floats(0, 2)), min_size=1, max_size=40
    ),
)
def test_everybody_leaves_once_in_good_company(max_rows: int, entries: list[tuple[int, int, bool, float]]) -> None:
    made = [
        Entry(str(index), rows, shape, 0.0, deadline, cancelled)
        for index, (rows, shape, cancelled, deadline) in enumerate(entries)
    ]
    line = batcher(max_rows, *made)
    seen: list[Entry[str]] = []
    while len(line):
        oldest = next((item for item in made if item not in seen and not item.cancelled and item.deadline > 1.0), None)
        batch, dropped = line.take(1.0)
        assert batch or dropped, "the line must move"
        assert all(item.cancelled or item.deadline <= 1.0 for item in dropped)
        assert not any(item.cancelled or item.deadline <= 1.0 for item in batch)
        assert len({item.shape for item in batch}) <= 1
        assert len(batch) <= 1 or sum(item.rows for item in batch) <= max_rows
        assert not batch or batch[0] is oldest, "nobody starves"
        assert [int(item.item) for item in batch] == sorted(int(item.item) for item in batch)
        seen += [*batch, *dropped]
    assert sorted(int(item.item) for item in seen) == list(range(len(made)))


def test_the_background_is_taken_when_nobody_else_waits_and_never_shares_a_batch() -> None:
    line = batcher(4, entry("x", background=True), entry("y", background=True), entry("a"), entry("b"))
    urgent = [line.urgent]
    assert names(line.take(1.0)[0]) == "ab"
    urgent.append(line.urgent)
    assert names(line.take(1.0)[0]) == "xy"
    assert (urgent, len(line)) == ([True, False], 0)


def test_what_expires_in_the_background_is_dropped_while_others_are_served() -> None:
    line = batcher(1, entry("x", deadline=5.0, background=True), entry("y", background=True), entry("a"), entry("b"))
    batch, dropped = line.take(6.0)
    assert (names(batch), names(dropped)) == ("a", "x")
    assert names(line.clear()) == "by"


def test_the_background_waits_for_company_like_others_but_not_beside_them() -> None:
    line = batcher(4, entry("x", arrived=1.0, background=True), max_delay=0.5)
    assert line.ready_at() == 1.5
    line.add(entry("a", arrived=1.2))
    assert line.ready_at() == 1.7


@given(st.lists(st.booleans(), max_size=40), st.integers(1, 5))
def test_whatever_comes_callers_are_taken_first_and_nobody_twice(waits: list[bool], max_rows: int) -> None:
    line: Batcher[str] = Batcher(max_rows)
    for number, background in enumerate(waits):
        line.add(entry(f"{number} ", background=background))
    taken: list[Entry[str]] = []
    while len(line):
        taken += line.take(1.0)[0]
    numbers = [int(each.item) for each in taken]
    callers = [number for number, background in enumerate(waits) if not background]
    assert numbers == callers + [number for number, background in enumerate(waits) if background]
