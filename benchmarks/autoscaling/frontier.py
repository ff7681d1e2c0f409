"""Cost against late requests, on traffic that no setting was chosen on.

    python -m benchmarks.autoscaling.frontier [TRACE.csv]

The hour is cut into blocks of two minutes, which are put together again in another order (as in the block bootstrap of
Künsch, 1989: bursts stay as they were, what comes before and after them does not). Ours runs as it comes. All
settings of plain scaling are drawn, and the one is named that was best on the real hour at our cost there.
"""

import random
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from benchmarks.autoscaling import compare
from benchmarks.autoscaling.arrivals import ATTRIBUTION, TRACES, Arrival, TokenCost, azure
from benchmarks.autoscaling.simulate import peak_workers
from benchmarks.autoscaling.simulator import Machine

BLOCK_SECONDS = 120.0
SEEDS = tuple(range(10))
START_SECONDS = (5.0, 15.0, 30.0)


@dataclass(slots=True)
class Sum:
    """What a setting came to over all orders."""

    cost: float = 0.0
    late: int = 0

    def add(self, run: compare.Run) -> None:
        """One more hour."""
        self.cost += run.cost / len(SEEDS)
        self.late += run.late


def reordered(arrivals: list[Arrival], seed: int) -> list[Arrival]:
    """The same hour with its blocks in another order."""
    blocks: dict[int, list[Arrival]] = defaultdict(list)
    for arrival in arrivals:
        blocks[int(arrival.at // BLOCK_SECONDS)].append(arrival)
    order = sorted(blocks)
    random.Random(seed).shuffle(order)
    return [
        Arrival(place * BLOCK_SECONDS + arrival.at % BLOCK_SECONDS, arrival.seconds)
        for place, block in enumerate(order)
        for arrival in blocks[block]
    ]


def frontier(sums: dict[str, Sum]) -> list[Sum]:
    """Those that no other beats on both counts, cheapest first."""
    best: list[Sum] = []
    for found in sorted(sums.values(), key=lambda item: (item.cost, item.late)):
        if not best or found.late < best[-1].late:
            best.append(found)
    return best


def evaluate(arrivals: list[Arrival], start_seconds: float) -> tuple[Sum, dict[str, Sum], str]:
    """Ours, every plain setting, and the name of the plain one that the real hour would have had one choose."""
    machine, most = Machine(start_seconds=start_seconds), peak_workers(arrivals, Machine())
    chosen = compare.at_equal_cost(compare.ours(arrivals, machine, most), compare.plain(arrivals, machine, most)).name
    mine, others = Sum(), defaultdict[str, Sum](Sum)
    for seed in SEEDS:
        hour = reordered(arrivals, seed)
        mine.add(compare.ours(hour, machine, most))
        for run in compare.plain(hour, machine, most):
            others[run.name].add(run)
    return mine, dict(others), chosen


def main(path: Path) -> None:
    """A table to standard output, a plot beside this file."""
    arrivals = azure(path, TokenCost())
    figure = Figure(figsize=(5 * len(START_SECONDS), 4.5), layout="constrained")
    panels = figure.subplots(1, len(START_SECONDS), sharey=True)
    print("| start-up | scaler | worker-seconds an hour | late |\n|---|---|---|---|")
    for panel, start_seconds in zip(panels, START_SECONDS, strict=True):
        mine, others, chosen = evaluate(arrivals, start_seconds)
        best = min((item for item in others.values() if item.cost <= 1.05 * mine.cost), key=lambda item: item.late)
        for label, item in (
            ("Headrace", mine),
            (f"plain, chosen on the real hour: {chosen}", others[chosen]),
            ("plain, the best at our cost + 5 %, in hindsight", best),
        ):
            print(f"| {start_seconds:.0f} s | {label} | {item.cost:,.0f} | {item.late:,} |", flush=True)
        panel.plot(
            [item.cost for item in others.values()], [item.late + 1 for item in others.values()], ".", color="0.7"
        )
        edge = frontier(others)
        panel.plot(
            [item.cost for item in edge], [item.late + 1 for item in edge], color="0.3", lw=1, label="plain: frontier"
        )
        panel.plot(others[chosen].cost, others[chosen].late + 1, "s", color="tab:orange", label="plain, chosen before")
        panel.plot(mine.cost, mine.late + 1, "o", color="tab:blue", label="Headrace")
        panel.set(title=f"a start takes {start_seconds:.0f} s", yscale="log")
    panels[0].set_ylabel(f"requests over {compare.LATE_SECONDS:.0f} s in {len(SEEDS)} hours, + 1")
    panels[0].legend(fontsize=8)
    figure.suptitle(f"{path.stem}, blocks of {BLOCK_SECONDS:.0f} s in another order", fontsize=11)
    figure.supxlabel(f"worker-seconds an hour\nTrace: {ATTRIBUTION}", fontsize=8)
    figure.savefig(Path(__file__).with_name("frontier.png"), dpi=80, metadata={"Software": ""})


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else TRACES / "AzureLLMInferenceTrace_code.csv")
