"""The sampler by rows: each gets its own parameters, whoever its neighbours are."""

import math

import torch
from torch import Tensor

from services.worker.llm.request import GenerationRequest, SamplingParams
from services.worker.llm.sampler import Sampled, Sampler
from services.worker.llm.sequence import Sequence
from tests.support.waits import Waits

VOCABULARY = 600
END = 9


def sequence(row: int, output: tuple[int, ...] = (), prompt: tuple[int, ...] = (1, 2), **params: object) -> Sequence:
    request = GenerationRequest(
        id=f"request {row}",
        prompt=prompt,
        params=SamplingParams(**params),  # type: ignore[arg-type]  # by name
    )
    return Sequence(request=request, number=row, limit=99, end_ids=frozenset({END}), tokens=[*prompt, *output], row=row)


def sample(logits: Tensor, *sequences: Sequence, allowed: Tensor | None = None) -> Sampled:
    sampler = Sampler(16, VOCABULARY, torch.device("cpu"))
    for one in sequences:
        sampler.admit(one)
    return sampler.sample(logits, sequences, allowed)


def rows(*bests: dict[int, float]) -> Tensor:
    logits = torch.zeros(len(bests), VOCABULARY)
    for row, best in enumerate(bests):
        for token, score in best.items():
            logits[row, token] = score
    return logits


def test_greedy_takes_the_best() -> None:
    assert sample(rows({5: 3.0}, {7: 2.0}), sequence(0, temperature=0), sequence(1, temperature=0)).tokens == [5, 7]


def test_a_sampled_token_depends_on_seed_and_position_only() -> None:
    logits = torch.randn(3, VOCABULARY, generator=torch.Generator().manual_seed(1))
    one = sequence(4, (3, 3), seed=7, top_p=0.9)
    alone = sample(logits[:1], one).tokens[0]
    in_company = sample(logits, one, sequence(1, temperature=0), sequence(2, seed=1, top_k=3)).tokens[0]
    elsewhere = sample(logits[[1, 0]], sequence(9, temperature=0), sequence(3, (8, 8), seed=7, top_p=0.9)).tokens[1]
    assert alone == in_company == elsewhere
    later = {sample(logits[:1], sequence(0, (3,) * n, seed=7)).tokens[0] for n in range(20)}
    assert len(later) > 15


def test_repetition_penalty_counts_prompt_and_output_the_others_output_only() -> None:
    logits = rows(*[{1: 3.0, 4: 2.9, 6: 2.0, 8: -1.0}] * 4)
    got = sample(
        logits,
        sequence(0, (4,), temperature=0, repetition_penalty=2.0),
        sequence(1, (4,), temperature=0, presence_penalty=1.5),
        sequence(2, (1, 1), temperature=0, frequency_penalty=0.4),
        sequence(3, (1, 1), temperature=0, presence_penalty=0.08, frequency_penalty=0.02),
    )
    assert got.tokens == [6, 1, 4, 4]


def test_penalties_follow_what_is_drawn() -> None:
    sampler = Sampler(4, VOCABULARY, torch.device("cpu"))
    one = sequence(2, temperature=0, frequency_penalty=1.0)
    sampler.admit(one)
    logits = rows({5: 3.0, 6: 2.5, 7: 0.9})
    for _ in range(5):
        one.tokens.append(sampler.sample(logits, [one]).tokens[0])
    assert one.output_tokens == [5, 6, 5, 6, 5]
    again = sequence(3, tuple(one.output_tokens), temperature=0, frequency_penalty=1.0)  # as after a preemption
    sampler.admit(again)
    assert sampler.sample(logits, [again]).tokens == [7]


def test_a_row_forgets_its_last_sequence() -> None:
    sampler = Sampler(4, VOCABULARY, torch.device("cpu"))
    sampler.admit(sequence(0, (5, 5), temperature=0, frequency_penalty=2.0))
    sampler.admit(sequence(0, (), temperature=0, frequency_penalty=2.0))
    assert sampler.sample(rows({5: 3.0}), [sequence(0, temperature=0, frequency_penalty=2.0)]).tokens == [5]


def test_bias() -> None:
    got = sample(
        rows({5: 3.0}, {5: 3.0}),
        sequence(0, temperature=0, logit_bias={5: -100.0, 6: 1.0}),
        sequence(1, temperature=0),
    )
    assert got.tokens == [6, 5]


def test_no_end_before_min_tokens() -> None:
    logits = rows({END: 9.0, 4: 1.0}, {END: 9.0, 4: 1.0})
    early, due = (sequence(row, (7,) * (row + 1), temperature=0, min_tokens=2) for row in range(2))
    assert sample(logits, early, due).tokens == [4, END]


def test_a_grammar_bounds_greedy_and_sampled_rows() -> None:
    allowed = torch.zeros(2, VOCABULARY, dtype=torch.bool)
    allowed[:, 33] = True
    assert sample(rows({5: 9.0}, {5: 9.0}), sequence(0, temperature=0), sequence(1), allowed=allowed).tokens == [33, 33]


def test_logprobs_are_the_models_own() -> None:
    logits = rows({5: 3.0, 6: 2.0}, {5: 3.0})
    scores = torch.log_softmax(logits, -1)
    first, second = sample(
        logits, sequence(0, temperature=0, logprobs=2, logit_bias={6: 50.0}), sequence(1, temperature=0)
    ).logprobs
    assert second is None and first is not None
    assert (first.rank, [token for token, _ in first.top]) == (2, [5, 6])
    assert math.isclose(first.chosen, scores[0, 6], rel_tol=1e-6)
    assert math.isclose(first.top[0][1], scores[0, 5], rel_tol=1e-6)


def test_logprobs_zero_asks_for_the_drawn_token_alone() -> None:
    (found,) = sample(rows({5: 3.0}), sequence(0, temperature=0, logprobs=0)).logprobs
    assert found is not None and (found.rank, found.top) == (1, ())


def test_rows_of_every_kind_are_drawn_without_waiting_in_between() -> None:
    sampler = Sampler(8, VOCABULARY, torch.device("cpu"))
    mixed = [
        sequence(0, temperature=0),
        sequence(1, seed=1, top_p=0.9),
        sequence(2, seed=2, top_k=5, min_p=0.1),
        sequence(3, (5,), seed=3, repetition_penalty=1.2, frequency_penalty=0.5),
        sequence(4, temperature=0, logit_bias={5: 2.0}, min_tokens=3),
    ]
    logits = torch.randn(len(mixed), VOCABULARY, generator=torch.Generator().manual_seed(1)) * 5
    with Waits() as waits:
        for one in mixed:
            sampler.admit(one)
        tokens = sampler.sample(logits, mixed).tokens
    assert waits.found == []
    assert min(tokens) >= 0


def test_a_row_whose_filter_ends_behind_the_candidates_is_drawn_from_the_whole_of_it() -> None:
    flat = torch.zeros(2, VOCABULARY)
    drawn = {
        token
        for seed in range(300)
        for token in sample(flat, sequence(0, seed=seed, top_p=0.99), sequence(1, temperature=0)).tokens[:1]
    }
    assert min(drawn) >= 0
    assert max(drawn) > 550, "more than the 512 best"
