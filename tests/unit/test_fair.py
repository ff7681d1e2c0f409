"""Fair shares: nobody starves, who always waits gets his part, nothing idles while somebody waits."""

from collections import Counter
from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from services.common.fair import FairLine, FairWindow, Shares
from services.common.levels import LevelLine
from services.worker.batcher import Batcher, Entry

COSTS = st.floats(0.01, 10)
WEIGHTS = st.sampled_from([0.25, 0.5, 1.0, 2.0, 4.0])


def take(line: FairLine[tuple[str, float]]) -> str:
    tenant, cost = line.pop()
    line.shares.serve(tenant, cost)
    return tenant


@given(
    weights=st.dictionaries(st.sampled_from("abcde"), WEIGHTS, min_size=2),
    costs=st.lists(COSTS, min_size=1, max_size=5),
    turns=st.integers(1, 200),
)
def test_those_who_always_wait_get_their_parts(weights: dict[str, float], costs: list[float], turns: int) -> None:
    line: FairLine[tuple[str, float]] = FairLine(Shares())
    had = dict.fromkeys(weights, 0.0)

    def send(tenant: str, number: int) -> None:
        line.add((tenant, costs[number % len(costs)]), tenant, weights[tenant])

    for tenant in weights:
        for number in range(2):
            send(tenant, number)
    for number in range(turns):
        tenant, cost = line.pop()
        line.shares.serve(tenant, cost)
        had[tenant] += cost / weights[tenant]
        send(tenant, number)
    # The bound of start-time fair queueing: no two differ by more than a largest request of each, over their weights.
    largest = max(costs)
    for one, weight in weights.items():
        for other, another in weights.items():
            assert abs(had[one] - had[other]) <= largest / weight + largest / another + 1e-6


@given(flood=st.integers(1, 500), cost=COSTS, before=st.integers(0, 100))
def test_who_sends_little_is_next_whatever_another_sends(flood: int, cost: float, before: int) -> None:
    line: FairLine[tuple[str, float]] = FairLine(Shares())
    for _ in range(flood + before + 1):
        line.add(("flood", cost), "flood")
    for _ in range(before):
        take(line)
    line.add(("quiet", cost), "quiet")
    assert "quiet" in (take(line), take(line)), "one of the flood's may have its turn at the same moment, no more"


@given(st.lists(st.tuples(st.sampled_from("abc"), COSTS, st.booleans()), max_size=200))
def test_everything_comes_out_once_and_each_tenants_in_order(events: list[tuple[str, float, bool]]) -> None:
    line: FairLine[tuple[str, int]] = FairLine(Shares())
    out: list[tuple[str, int]] = []
    for number, (tenant, cost, leave) in enumerate(events):
        line.add((tenant, number), tenant)
        if leave:
            out.append(line.pop())
            line.shares.serve(out[-1][0], cost)
    while len(line):
        out.append(line.pop())
        line.shares.serve(out[-1][0], 1.0)
    assert sorted(number for _, number in out) == list(range(len(events)))
    for name in "abc":
        mine = [number for tenant, number in out if tenant == name]
        assert mine == sorted(mine)


def test_a_pause_is_no_credit() -> None:
    line: FairLine[tuple[str, float]] = FairLine(Shares())
    for _ in range(1000):
        line.add(("busy", 1.0), "busy")
    for _ in range(500):
        take(line)
    for _ in range(100):
        line.add(("late", 1.0), "late")
    served = Counter(take(line) for _ in range(100))
    assert abs(served["late"] - served["busy"]) <= 1


@given(burst=st.integers(1, 60), credit=st.floats(0, 30), before=st.integers(40, 80))
def test_a_credit_serves_a_burst_first_and_costs_the_others_no_more_than_it(
    burst: int, credit: float, before: int
) -> None:
    line: FairLine[tuple[str, float]] = FairLine(Shares(credit))
    for _ in range(400):
        line.add(("flood", 1.0), "flood")
    for _ in range(before):
        take(line)
    for _ in range(burst):
        line.add(("quiet", 1.0), "quiet")
    served = [take(line) for _ in range(2 * burst + 60)]
    first = min(burst, int(credit))
    assert served[: first + 1].count("quiet") >= first
    for end in range(1, len(served) + 1):
        assert served[:end].count("quiet") - served[:end].count("flood") <= credit + 2, "then they take turns"


def test_a_wrong_guess_is_made_good() -> None:
    """One tenant's requests cost ten times what they were thought to; after a while seconds are even, not requests."""
    shares = Shares()
    line: FairLine[tuple[str, float]] = FairLine(shares)
    spent = {"dear": 0.0, "cheap": 0.0}
    for _ in range(2000):
        line.add(("dear", 10.0), "dear")
        line.add(("cheap", 1.0), "cheap")
    for _ in range(1100):
        tenant, cost = line.pop()
        shares.serve(tenant, 1.0)
        shares.correct(tenant, cost - 1.0)
        spent[tenant] += cost
    assert abs(spent["dear"] - spent["cheap"]) <= 20


@given(
    size=st.integers(1, 8),
    own=st.integers(1, 3),
    events=st.lists(st.tuples(st.sampled_from(["flood", "a", "b"]), st.booleans()), max_size=300),
)
def test_a_window_is_never_idle_never_over_full_and_always_has_room_for_who_has_little(
    size: int, own: int, events: list[tuple[str, bool]]
) -> None:
    window: FairWindow[str] = FairWindow(Shares(), size, own)
    waiting: Counter[str] = Counter()
    gone: list[str] = []
    for tenant, ends in events:
        if ends and gone:
            window.over(gone.pop(0), window.cost, 0.5)
        else:
            window.add(tenant, tenant, 1.0)
            waiting[tenant] += 1
        while (item := window.next()) is not None:
            gone.append(item)
            waiting[item] -= 1
        under_way = Counter(gone)
        assert window.under_way == len(gone)
        assert len(gone) <= size + own * len(under_way), "no more than the window and everybody's own"
        for name, count in waiting.items():
            if count:
                assert len(gone) >= size, "work waits only while the window is full"
                assert under_way[name] >= own, "and nobody waits who has little under way"


def test_a_flood_in_the_batchers_line_gives_way_to_each_request_of_others() -> None:
    line: Batcher[str] = Batcher(4)
    for number in range(40):
        line.add(Entry("flood", 1, None, number, 1e9, tenant="flood"))
    batch, _ = line.take(50.0)
    line.ran(batch, 0.4, 51.0)
    line.add(Entry("quiet", 1, None, 50.0, 1e9, tenant="quiet"))
    line.add(Entry("quiet", 1, None, 50.0, 1e9, tenant="quiet"))
    batch, _ = line.take(51.0)
    assert Counter(entry.item for entry in batch) == {"quiet": 2, "flood": 2}
    assert sum(entry.charged for entry in batch) > 0


class Urgent(NamedTuple):
    level: int
    number: int


@given(st.lists(st.tuples(st.integers(1, 4), st.booleans(), st.booleans()), max_size=200))
def test_levels_are_an_order_and_within_each_the_first_is_first(events: list[tuple[int, bool, bool]]) -> None:
    line: LevelLine[Urgent] = LevelLine()
    waiting: list[Urgent] = []
    for number, (level, leave, come_back) in enumerate(events):
        item = Urgent(level, number)
        line.append(item)
        waiting.append(item)
        if leave:
            first = line.popleft()
            assert first == min(waiting)
            if come_back:
                line.appendleft(first)
            else:
                waiting.remove(first)
        assert list(line) == sorted(waiting)
        assert (len(line), bool(line)) == (len(waiting), bool(waiting))


def test_a_high_level_passes_a_window_that_low_ones_fill_and_nobody_passes_another_tenant() -> None:
    window: FairWindow[Urgent] = FairWindow(Shares(), 2, 1, LevelLine, lambda item: item.level)
    for number in range(5):
        window.add(Urgent(3, number), "a", 1.0)
    gone = [window.next(), window.next(), window.next()]
    assert gone == [Urgent(3, 0), Urgent(3, 1), None]
    window.add(Urgent(1, 9), "a", 1.0)
    window.add(Urgent(1, 10), "a", 1.0)
    assert [window.next(), window.next()] == [Urgent(1, 9), None]
    window.add(Urgent(3, 11), "b", 1.0)
    assert window.next() == Urgent(3, 11), "his own place, beside the other's urgent ones"
    for level in (3, 3, 1):
        window.over("a", window.cost, 0.5, level)
    assert window.next() == Urgent(1, 10)


def test_batches_take_higher_levels_first() -> None:
    line: Batcher[str] = Batcher(2, levels=True)
    for name, level in (("c", 3), ("d", 3), ("a", 1), ("b", 2)):
        line.add(Entry(name, 1, None, 0.0, 1e9, level=level))
    batches = []
    while len(line):
        batches.append("".join(entry.item for entry in line.take(1.0)[0]))
    assert batches == ["ab", "cd"]
