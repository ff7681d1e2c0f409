"""One load: some callers at once, when each of their tokens came, and what that says."""

import random
from dataclasses import dataclass
from itertools import pairwise
from statistics import quantiles

# Seconds after which a load is given up, so that one engine that hangs leaves time for the others.
PATIENCE = 90.0


@dataclass(frozen=True, slots=True)
class Load:
    """Requests that are submitted together.

    Attributes:
        prompts: token ids, one for each caller; all of the same length.
        outputs: tokens that each gets; end tokens are ignored.
    """

    prompts: list[tuple[int, ...]]
    outputs: int


@dataclass(frozen=True, slots=True)
class Figures:
    """What a load says; times in milliseconds.

    Attributes:
        tokens_per_second: output tokens of all, from the submission to the last one.
        decode_per_second: of the tokens behind each first one, from the last first token on; 0 if none came then.
        first_p50, first_p99: time to first token.
        gap_p50, gap_p99: time between a caller's tokens.
    """

    tokens_per_second: float
    decode_per_second: float
    first_p50: float
    first_p99: float
    gap_p50: float
    gap_p99: float


def make(callers: int, prompt: int, outputs: int, vocabulary: int, seed: int) -> Load:
    """Random prompts, another set for each seed, so that no prefix cache helps."""
    chance = random.Random(seed)
    prompts = [tuple(chance.randrange(1, vocabulary) for _ in range(prompt)) for _ in range(callers)]
    return Load(prompts, outputs)


def figures(began: float, arrivals: list[list[float]]) -> Figures:
    """Of the times, in seconds on one clock, at which each caller's tokens came."""
    firsts = [(times[0] - began) * 1e3 for times in arrivals]
    gaps = [(later - earlier) * 1e3 for times in arrivals for earlier, later in pairwise(times)]
    end = max(times[-1] for times in arrivals)
    decoding = max(times[0] for times in arrivals)
    decoded = sum(time > decoding for times in arrivals for time in times)
    return Figures(
        tokens_per_second=sum(map(len, arrivals)) / (end - began),
        decode_per_second=decoded / (end - decoding) if decoded else 0.0,
        first_p50=_percentile(firsts, 50),
        first_p99=_percentile(firsts, 99),
        gap_p50=_percentile(gaps, 50),
        gap_p99=_percentile(gaps, 99),
    )


def _percentile(values: list[float], percent: int) -> float:
    return quantiles(values, n=100, method="inclusive")[percent - 1] if len(values) > 1 else sum(values)
