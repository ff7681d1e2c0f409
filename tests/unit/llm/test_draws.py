"""Stateless random numbers: functions of (seed, position), uniform, and unrelated to each other."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from services.worker.llm.draws import uniforms

SEEDS = st.integers(0, 2**63 - 1)


@given(st.lists(st.tuples(SEEDS, st.integers(0, 100_000)), min_size=1, max_size=8))
def test_company_does_not_matter(pairs: list[tuple[int, int]]) -> None:
    together = uniforms(*zip(*pairs, strict=True))
    assert together.tolist() == [uniforms([seed], [position])[0] for seed, position in pairs]
    assert all(0 <= u < 1 for u in together)


def test_known_values_stay_so_that_streams_survive_an_upgrade() -> None:
    assert uniforms([0, 0, 1], [0, 1, 0]).round(6).tolist() == [0.652448, 0.701212, 0.36819]


def test_they_are_uniform_along_positions_and_along_seeds() -> None:
    count = 100_000
    along = (uniforms([7] * count, range(count)), uniforms(range(count), [3] * count))
    for numbers in along:
        filled = np.histogram(numbers, 20, (0, 1))[0] / count
        assert abs(filled - 0.05).max() < 0.004  # five standard deviations are 0.0034
        assert abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) < 0.02
