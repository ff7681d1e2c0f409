"""A tenant sends ten times his share, in simulated time: what the others notice, and what he gets."""

import argparse

import pytest

from benchmarks.multi_model.callers import percentile
from benchmarks.tenants.kinds import TENSORS
from benchmarks.tenants.simulate import STEPS, TENANTS, Kind, run

KINDS = {kind.name: kind for kind in (*TENSORS, *STEPS)}


def flood(kind: Kind, share: float, times: float) -> tuple[float, float]:
    """The others' p99 in seconds, and the flood's answers a second."""
    quiet, answers = run(kind, times, argparse.Namespace(share=share, seconds=150, gateways=1), shared=True)
    return percentile(quiet, 0.99), answers


@pytest.mark.parametrize("share", [0.1, 0.16])
@pytest.mark.parametrize("name", ["batch-costs", "rows-cost", "tokens, rows cost"])
def test_the_others_p99_stays_within_a_fifth_and_the_flood_gets_more_than_his_part(name: str, share: float) -> None:
    kind = KINDS[name]
    calm, _ = flood(kind, share, 1)
    flooded, answers = flood(kind, share, 10)
    assert flooded <= 1.2 * calm
    assert answers > kind.capacity() / len(TENANTS)
