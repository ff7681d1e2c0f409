"""The scheduler where tenants compete: who yields, and how long a flood makes a step."""

from collections import Counter

import pytest

from tests.support.scheduling import scheduler, step, submit


def test_a_flood_yields_rows_to_each_tenant_up_to_his_part_and_takes_none_back() -> None:
    core = scheduler(seqs=4, blocks=400)
    for number in range(20):
        submit(core, f"flood{number}", most=50, tenant="flood")
    step(core)
    assert len(core.running) == 4
    for number in range(3):
        submit(core, f"quiet{number}", most=3, tenant="quiet")
    plan = step(core)
    assert [s.id for s in plan.preempted] == ["flood3"], "one row a step"
    assert [s.id for s in plan.admitted] == ["quiet0"]
    step(core)
    assert Counter(s.request.tenant for s in core.running) == {"flood": 2, "quiet": 2}
    before = core.counters.preemptions
    while any(s.request.tenant == "quiet" for s in (*core.running, *core.waiting)):
        step(core)
    assert core.counters.preemptions == before, "both have their part: nobody loses a row"
    step(core)
    assert Counter(s.request.tenant for s in core.running) == {"flood": 4}, "no row stays empty"


def test_tenants_that_flood_share_tokens_by_weight() -> None:
    core, tokens = scheduler(seqs=4, blocks=400), Counter[str]()
    for number in range(200):
        submit(core, f"a{number}", most=4, tenant="a")
        submit(core, f"b{number}", most=16, tenant="b")
    for _ in range(300):
        for sequence, count in zip((plan := step(core)).sequences, plan.counts, strict=True):
            tokens[sequence.request.tenant] += count
    assert 0.8 < tokens["a"] / tokens["b"] < 1.25, tokens


@pytest.mark.parametrize(("token_seconds", "flooded"), [(0.0, 16), (0.001, 6)])
def test_a_flood_makes_steps_no_longer_than_thrice_an_empty_one(token_seconds: float, flooded: int) -> None:
    """Steps of 3 ms: where tokens cost nothing they are full, where each costs 1 ms they hold six of the flood's."""
    core, now, ended = scheduler(seqs=16, blocks=1000), 0.0, Counter[str]()
    sizes: list[int] = []
    for number in range(3000):
        while sum(s.request.tenant == "flood" for s in core.waiting) < 4:
            submit(core, f"flood{len(ended)}-{number}-{len(core.waiting)}", most=20, tenant="flood")
        if number % 100 == 0:
            submit(core, f"quiet{number}", most=10, tenant="quiet")
        plan = core.step(now)
        now += 0.003 + token_seconds * sum(plan.counts)
        for sequence in core.commit(plan, [7] * len(plan.sampling)):
            ended[sequence.request.tenant] += sequence.finish_reason is not None
        core.check_integrity()
        if number > 1000 and not any(s.request.tenant == "quiet" for s in core.running):
            sizes.append(len(plan.sequences))
    assert ended["quiet"] >= 29, "who sends little waits for nobody"
    assert flooded - 1 <= sorted(sizes)[len(sizes) // 2] <= flooded
    assert ended["flood"] > 300, "and the flood goes on"


def test_without_tenants_nobody_yields() -> None:
    core = scheduler(seqs=2, blocks=400)
    for name in "abcd":
        submit(core, name, most=20)
    for _ in range(10):
        step(core)
    assert core.counters.preemptions == 0
