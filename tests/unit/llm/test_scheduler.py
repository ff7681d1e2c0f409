"""The scheduler by cases: what each step computes, who yields, who is refused."""

import pytest

from services.common.errors import Internal, InvalidArgument
from services.worker.llm.request import SamplingParams
from tests.support.scheduling import EOS, chunks, scheduler, step, submit


def test_a_sequence_is_computed_token_by_token_after_its_prompt() -> None:
    core = scheduler()
    a = submit(core, "a", (11, 12, 13, 14, 15), most=3)
    first = step(core, 50)
    assert chunks(first) == [("a", 0, 5)]
    assert first.token_ids == [11, 12, 13, 14, 15]
    assert first.sampling == [0]
    second = step(core, 51)
    assert chunks(second) == [("a", 5, 1)]
    assert second.token_ids == [50]
    step(core, 52)
    assert (a.output_tokens, a.finish_reason) == ([50, 51, 52], "length")
    assert not core.step(0)
    assert core.pool.available == 100


def test_long_prompts_are_cut_into_chunks_and_decodes_keep_their_place() -> None:
    core = scheduler(budget=8)
    submit(core, "a", 3, most=9)
    step(core)
    submit(core, "b", 20)
    assert [chunks(step(core)) for _ in range(4)] == [
        [("a", 3, 1), ("b", 0, 7)],
        [("a", 4, 1), ("b", 7, 7)],
        [("a", 5, 1), ("b", 14, 6)],
        [("a", 6, 1), ("b", 20, 1)],
    ]


def test_a_prompt_under_way_leaves_a_token_for_each_behind_it() -> None:
    core = scheduler(budget=8)
    submit(core, "late but low", 4, most=9)
    step(core)
    submit(core, "urgent", 20, priority=1)
    step(core)
    assert chunks(step(core)) == [("urgent", 7, 7), ("late but low", 5, 1)]


def test_the_block_table_is_told_in_pieces() -> None:
    core = scheduler(size=4)
    a = submit(core, "a", 6, most=9)
    first = core.step(0)
    assert (first.table_rows, first.table_columns, first.table_blocks) == ([a.row] * 2, [0, 1], a.blocks)
    core.commit(first, [7])
    assert step(core).table_blocks == []
    step(core)
    third = step(core)
    assert (third.table_rows, third.table_columns, third.table_blocks) == ([a.row], [2], a.blocks[2:])


def test_equal_prompts_share_blocks_within_one_step_and_after_the_end() -> None:
    core = scheduler()
    prompt = tuple(range(20, 30))
    a, b = submit(core, "a", prompt), submit(core, "b", prompt)
    assert chunks(core.step(0)) == [("a", 0, 10), ("b", 8, 2)]
    assert a.blocks[:2] == b.blocks[:2] and a.blocks[2] != b.blocks[2]
    assert (a.cached_tokens, b.cached_tokens) == (0, 8)
    core.abort("a")
    core.abort("b")
    core.check_integrity()
    submit(core, "c", prompt)
    assert chunks(step(core)) == [("c", 8, 2)]
    assert core.counters.prefix_hits == 16


def test_tenants_do_not_share() -> None:
    core = scheduler()
    prompt = tuple(range(20, 30))
    submit(core, "a", prompt, tenant="x")
    submit(core, "b", prompt, tenant="y")
    assert chunks(step(core)) == [("a", 0, 10), ("b", 0, 10)]


def test_the_last_prompt_token_is_always_computed() -> None:
    core = scheduler()
    prompt = tuple(range(20, 28))
    submit(core, "a", prompt)
    step(core)
    submit(core, "b", prompt)
    assert ("b", 4, 4) in chunks(step(core))


def test_without_prefix_caching_nothing_is_shared() -> None:
    core = scheduler(prefix_caching=False)
    prompt = tuple(range(20, 30))
    submit(core, "a", prompt)
    submit(core, "b", prompt)
    assert chunks(step(core)) == [("a", 0, 10), ("b", 0, 10)]
    assert core.pool.idle == 0


def test_the_last_come_yields_and_is_computed_again() -> None:
    core = scheduler(blocks=6, size=4, prefix_caching=False)
    a, b = submit(core, "a", 8, most=12), submit(core, "b", 8, most=8)
    plans = [step(core) for _ in range(5)]
    while not (plan := step(core)).preempted:
        plans.append(plan)
    assert plan.preempted == [b]
    assert b.preemptions == 1 and b.row == -1
    had = list(b.tokens)
    while a.finish_reason is None:
        step(core)
    again = step(core)
    assert chunks(again) == [("b", 0, len(had))]
    assert again.token_ids == had


def test_a_newcomer_leaves_a_spare_block_for_each_that_runs() -> None:
    core = scheduler(blocks=5, size=4, prefix_caching=False)
    submit(core, "a", 8, most=5)
    step(core)
    submit(core, "b", 8, most=5)
    assert [s.id for s in step(core).sequences] == ["a"]
    submit(core, "c", 4, most=5, priority=1)
    assert [s.id for s in step(core).sequences] == ["a", "c"]


def test_the_last_one_pauses_instead_of_throwing_its_own_work_away() -> None:
    core = scheduler(blocks=4, size=4)
    a, b = submit(core, "a", 4, most=4), submit(core, "b", 8, most=8)
    step(core)
    kept = list(b.blocks)
    while a.finish_reason is None:
        step(core)
    assert b.blocks[:2] == kept and b.preemptions == 0


def test_priority_goes_first_and_equals_in_order() -> None:
    core = scheduler(seqs=2)
    for name, priority in (("a", 0), ("b", 0), ("c", 1), ("d", 1)):
        submit(core, name, priority=priority)
    assert [s.id for s in step(core).sequences] == ["c", "d"]


def test_aborted_sequences_free_their_blocks_at_once() -> None:
    core = scheduler(prefix_caching=False)
    a = submit(core, "a", 20)
    plan = core.step(0)
    assert core.pool.available == 95
    assert core.abort("a") is a
    assert core.pool.available == 100
    assert core.commit(plan, [7]) == []
    assert core.abort("a") is None
    assert (a.finish_reason, a.output_tokens) == ("abort", [])


def test_deadlines_end_running_and_waiting_sequences() -> None:
    core = scheduler(seqs=1)
    a, b, c = submit(core, "a", deadline=5.0), submit(core, "b", deadline=3.0), submit(core, "c")
    assert step(core, now=1.0).expired == []
    assert step(core, now=3.0).expired == [b]
    assert chunks(late := step(core, now=9.0)) == [("c", 0, 5)]
    assert late.expired == [a]
    assert (a.finish_reason, b.finish_reason, c.finish_reason) == ("abort", "abort", None)


@pytest.mark.parametrize(
    ("params", "tokens", "reason", "stop"),
    [
        (SamplingParams(max_tokens=9), [5, EOS], "stop", None),
        (SamplingParams(max_tokens=3, ignore_eos=True), [5, EOS, 5], "length", None),
        (SamplingParams(max_tokens=9, stop_token_ids=(6, 8)), [5, 8], "stop", 8),
        (SamplingParams(max_tokens=9, ignore_eos=True, stop_token_ids=(EOS,)), [EOS], "stop", EOS),
        (SamplingParams(max_tokens=9, min_tokens=3), [EOS, EOS, EOS], "stop", None),
        (SamplingParams(max_tokens=2), [5, EOS], "stop", None),
        (SamplingParams(max_tokens=2), [5, 5], "length", None),
        (SamplingParams(max_tokens=None), [5] * 15, "length", None),
    ],
)
def test_what_ends_a_sequence(params: SamplingParams, tokens: list[int], reason: str, stop: int | None) -> None:
    core = scheduler(context=20)
    a = submit(core, "a", 5, params=params)
    for token in tokens:
        assert a.finish_reason is None
        step(core, token)
    assert (a.finish_reason, a.stop_reason) == (reason, stop)
    assert len(core) == 0


def test_resumed_tokens_count_as_output() -> None:
    core = scheduler()
    a = submit(core, "a", (11, 12, 13), most=4, resume=(50, 51))
    assert step(core, 52).token_ids == [11, 12, 13, 50, 51]
    step(core, 53)
    assert (a.output_tokens, a.finish_reason) == ([50, 51, 52, 53], "length")


@pytest.mark.parametrize(("resume", "reason"), [((50, EOS), "stop"), ((50, 51, 52), "length")])
def test_what_was_over_when_it_was_resumed_is_over_at_once(resume: tuple[int, ...], reason: str) -> None:
    core = scheduler()
    assert submit(core, "a", 3, most=3, resume=resume).finish_reason == reason
    assert not core.step(0)


@pytest.mark.parametrize(
    ("prompt", "most", "context", "message"),
    [
        ((), 5, 100, "the prompt is empty"),
        ((1,) * 100, 5, 100, r"prompt has 100 tokens, but the model's context \(max_model_len\) holds 100"),
        ((1,) * 90, 20, 100, "come to 110, but the model's context .* max_tokens of at most 10"),
        ((1,) * 30, 20, 1000, "come to 50, but the KV pool of 10 blocks of 4 tokens holds 41"),
        ((1, 1000), 5, 100, "prompt holds token id 1000; the model's vocabulary has ids 0 to 999"),
        ((1, -1), 5, 100, "prompt holds token id -1"),
    ],
)
def test_what_can_never_run_is_refused(prompt: tuple[int, ...], most: int, context: int, message: str) -> None:
    core = scheduler(context=context, blocks=10 if context > 100 else 100)
    with pytest.raises(InvalidArgument, match=message):
        submit(core, "a", prompt, most)
    assert len(core) == 0


def test_what_fits_exactly_runs_alone_to_its_end() -> None:
    core = scheduler(blocks=5, size=4, budget=8)
    a = submit(core, "a", 11, most=10)
    submit(core, "b", 11, most=10)
    for _ in range(30):
        step(core)
    assert a.finish_reason == "length" and len(core) == 0


def test_ids_are_unique_while_they_live() -> None:
    core = scheduler()
    submit(core, "a")
    with pytest.raises(InvalidArgument, match="'a' is under way"):
        submit(core, "a")
    core.abort("a")
    submit(core, "a")


def test_a_failed_plan_can_be_taken_back() -> None:
    core = scheduler()
    prompt = tuple(range(20, 30))
    a = submit(core, "a", prompt)
    submit(core, "b", prompt)
    plan = core.step(0)
    core.retract(plan)
    core.check_integrity()
    assert core.pool.available == 100 and core.pool.idle == 0
    core.abort("b")
    assert chunks(step(core)) == [("a", 0, 10)]
    assert a.output_tokens == [7]


def test_steps_may_overlap() -> None:
    core = scheduler()
    a = submit(core, "a", (11, 12, 13), most=3)
    first = core.step(0)
    second = core.step(0)
    assert (second.token_ids, second.starts) == ([-1], [3])
    core.commit(first, [50])
    third = core.step(0)
    core.commit(second, [51])
    assert not core.step(0), "the third token is the last; it must not be computed"
    core.commit(third, [52])
    core.check_integrity()
    assert (a.output_tokens, a.finish_reason) == ([50, 51, 52], "length")


def test_blocks_whose_last_token_is_under_way_are_shared_once_it_is_known() -> None:
    core = scheduler()
    submit(core, "a", (11, 12, 13), most=6)
    plans = [core.step(0)]
    for token in (50, 51, 52):
        plans.append(core.step(0))
        core.commit(plans.pop(0), [token])
    submit(core, "b", (11, 12, 13, 50, 51, 52), most=3)
    assert ("b", 4, 2) in chunks(core.step(0))


def test_with_a_token_under_way_nobody_comes_back_from_preemption() -> None:
    core = scheduler(blocks=4, size=2, prefix_caching=False)
    a, b = submit(core, "a", 2, most=6), submit(core, "b", 4, most=3)
    plans = [core.step(0) for _ in range(4)]
    assert (plans[3].preempted, b.pending) == ([b], 1)
    core.abort("a")
    assert not core.step(0)
    core.commit(plans[0], [50, 51])
    assert core.step(0).token_ids == [*b.request.prompt, 51]
    assert a.output_tokens == []


def test_a_commit_must_bring_one_token_for_each_sample() -> None:
    core = scheduler()
    submit(core, "a")
    with pytest.raises(Internal, match="2 sampled tokens for a plan that samples 1"):
        core.commit(core.step(0), [1, 2])
