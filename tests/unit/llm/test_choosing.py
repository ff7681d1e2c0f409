"""Drawing tokens: filters by cases and against a plain implementation, frequencies against probabilities."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from services.worker.llm.choosing import UNDECIDED, Filters, choose
from services.worker.llm.draws import uniforms

GRID = torch.linspace(0, 1 - 1e-9, 2001, dtype=torch.float64)


def filters(
    rows: int, temperature: float = 1.0, top_k: int = 1 << 40, top_p: float = 1.0, min_p: float = 0.0
) -> Filters:
    return Filters(
        torch.full((rows,), temperature),
        torch.full((rows,), top_k),
        torch.full((rows,), top_p),
        torch.full((rows,), min_p),
        any=top_k < 1 << 40 or top_p < 1 or min_p > 0,
    )


def possible(logits: list[float], **settings: float) -> list[int]:
    """Tokens that come for some uniform number."""
    rows = torch.tensor(logits)[None].expand(len(GRID), -1).contiguous()
    made = filters(len(GRID), **settings)  # type: ignore[arg-type]  # top_k is an int where it is given
    return sorted(set(decided(rows, made, GRID).tolist()))


def decided(logits: Tensor, made: Filters, uniform: Tensor) -> Tensor:
    """As the sampler does it: what the candidates leave undecided is drawn from whole rows."""
    first, whole = choose(logits, made, uniform), choose(logits, made, uniform, whole=True)
    assert torch.equal(first[first != UNDECIDED], whole[first != UNDECIDED])
    return torch.where(first == UNDECIDED, whole, first)


def logits_of(*probabilities: float) -> list[float]:
    return [float(np.log(p)) if p else -np.inf for p in probabilities]


def test_all_tokens_with_a_probability_may_come_and_no_other() -> None:
    assert possible(logits_of(0.0, 0.5, 0.0, 0.3, 0.2, 0.0)) == [1, 3, 4]


def test_top_k() -> None:
    assert possible(logits_of(0.1, 0.4, 0.3, 0.2), top_k=2) == [1, 2]


def test_top_p_keeps_the_token_that_crosses_it() -> None:
    assert possible(logits_of(0.1, 0.4, 0.3, 0.2), top_p=0.45) == [1, 2]
    assert possible(logits_of(0.1, 0.4, 0.3, 0.2), top_p=0.01) == [1]


def test_min_p_is_relative_to_the_best() -> None:
    assert possible(logits_of(0.1, 0.4, 0.3, 0.2), min_p=0.5) == [1, 2, 3]
    assert possible(logits_of(0.1, 0.4, 0.3, 0.2), min_p=0.51) == [1, 2]


def test_top_p_counts_what_top_k_left() -> None:
    # 0.4 of the 0.7 that top_k leaves are 0.57
    assert possible(logits_of(0.1, 0.4, 0.3, 0.2), top_k=2, top_p=0.55) == [1]
    assert possible(logits_of(0.1, 0.4, 0.3, 0.2), top_p=0.55) == [1, 2]


def test_tokens_as_likely_as_the_last_that_passes_pass_too() -> None:
    assert possible(logits_of(0.25, 0.25, 0.25, 0.25), top_k=1) == [0, 1, 2, 3]


def test_the_last_uniform_number_takes_a_token_that_may_come() -> None:
    logits = torch.tensor([logits_of(0.5, 0.5, 0.0)])
    assert choose(logits, filters(1), torch.tensor([1 - 2**-53], dtype=torch.float64)).tolist() == [1]


def plain(logits: NDArray[np.float64], top_k: int, top_p: float, min_p: float) -> set[int]:
    p = np.exp(logits - logits.max())
    p /= p.sum()
    order = [int(i) for i in np.argsort(-p, kind="stable") if p[i] >= min_p * p.max()][:top_k]
    whole, mass, kept = sum(p[i] for i in order), 0.0, set()
    for i in order:
        if mass < top_p * whole:
            kept.add(i)
        mass += p[i]
    return kept


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([5, 700]), st.integers(1, 700), st.floats(0.05, 1), st.floats(0, 0.3))
def test_filters_agree_with_a_plain_implementation(
    seed: int, vocabulary: int, top_k: int, top_p: float, min_p: float
) -> None:
    # 700 is more than the candidates that are sorted at first; flat rows make the filters end behind them
    random = np.random.default_rng(seed)
    logits = random.normal(0, random.choice([0.05, 3.0]), vocabulary).astype(np.float32)
    expected = plain(logits.astype(np.float64), top_k, top_p, min_p)
    edges = torch.tensor([[0.0], [0.5], [1 - 1e-12]], dtype=torch.float64)
    rows = torch.from_numpy(logits)[None].expand(3, -1).contiguous()
    got = set(decided(rows, filters(3, 1.0, top_k, top_p, min_p), edges.flatten()).tolist())
    # rounding may move the edge of the nucleus by one token, never further
    slack = plain(logits.astype(np.float64), top_k, min(1.0, top_p + 1e-5), min_p)
    assert got <= expected | slack
    assert min(got) == min(expected) or min(got) == min(slack)
    assert max(got) == max(expected) or max(got) == max(slack)


def test_tokens_come_as_often_as_they_should() -> None:
    count = 40_000
    logits = torch.tensor([0.0, 1.0, 2.0, -1.0])
    drawn = choose(
        logits.expand(count, -1).contiguous(),
        filters(count, temperature=0.7),
        torch.from_numpy(uniforms(range(count), [0] * count)),
    )
    shares = torch.bincount(drawn, minlength=4) / count
    assert (shares - torch.softmax(logits / 0.7, 0)).abs().max() < 0.012


def test_only_filters_that_end_behind_the_candidates_leave_a_row_undecided() -> None:
    flat = torch.zeros(4, 2000)
    flat[1, 7] = 20.0  # nearly all of the mass
    made = Filters(
        torch.ones(4),
        torch.tensor([2000, 2000, 40, 2000]),
        torch.tensor([0.9, 0.9, 1.0, 1.0]),
        torch.zeros(4),
        any=True,
    )
    first = choose(flat, made, torch.full((4,), 0.5, dtype=torch.float64))
    # All tokens of the third row are as likely as its fortieth, so all pass; the fourth has no filter at all.
    assert (first == UNDECIDED).tolist() == [True, False, True, False]
    assert first[1] == 7
    assert (choose(flat, made, torch.full((4,), 0.5, dtype=torch.float64), whole=True) != UNDECIDED).all()
