"""Requests to simulate: from the Azure traces, or made up. Times are seconds from the start."""

import csv
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

# Beside the checkout; see its README. The licence (CC-BY 4.0) asks for attribution wherever a figure is shown.
TRACES = Path(__file__).resolve().parents[3] / "shared" / "traces"
ATTRIBUTION = "Azure Public Dataset (AzurePublicDataset, LLM inference traces 2023), CC-BY 4.0"


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request: when it comes, and what it adds to the time of the batch that it runs in."""

    at: float
    seconds: float


@dataclass(frozen=True, slots=True)
class TokenCost:
    """What tokens cost a worker, in seconds for each."""

    prompt: float = 1 / 20_000
    generated: float = 1 / 250


def azure(path: Path, cost: TokenCost) -> list[Arrival]:
    """An Azure LLM inference trace. Raises FileNotFoundError."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    # Ticks of 100 ns: Python's microseconds lack the last digit.
    times = [datetime.fromisoformat(row["TIMESTAMP"][:26]).timestamp() for row in rows]
    return [
        Arrival(at - times[0], int(row["ContextTokens"]) * cost.prompt + int(row["GeneratedTokens"]) * cost.generated)
        for at, row in zip(times, rows, strict=True)
    ]


def poisson(rate: Callable[[float], float], most: float, until: float, seconds: float, seed: int = 0) -> list[Arrival]:
    """Arrivals at a rate that changes with time, never over `most`, each costing `seconds` (thinning, Lewis 1979)."""
    generator = random.Random(seed)
    arrivals, now = [], 0.0
    while (now := now + generator.expovariate(most)) < until:
        if generator.random() * most < rate(now):
            arrivals.append(Arrival(now, seconds))
    return arrivals
