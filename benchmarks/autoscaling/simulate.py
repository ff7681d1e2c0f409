"""The policy against plain queue-length scaling and peak provisioning, on an hour of production traffic.

    python -m benchmarks.autoscaling.simulate [TRACE.csv …]

Writes a table to standard output and a plot beside this file. Without arguments it takes the Azure traces from the
`shared` folder beside the checkout.
"""

import sys
from collections import Counter
from math import ceil
from pathlib import Path

from benchmarks.autoscaling import compare
from benchmarks.autoscaling.arrivals import ATTRIBUTION, TRACES, Arrival, TokenCost, azure
from benchmarks.autoscaling.plot import draw
from benchmarks.autoscaling.simulator import Machine

START_SECONDS = (2.0, 5.0, 15.0, 30.0)
DRAWN_START_SECONDS = 15.0
UTILISATION = 0.7


def peak_workers(arrivals: list[Arrival], machine: Machine) -> int:
    """Enough for the busiest second at 70 % utilisation, as who provisions for the peak would reckon."""
    busiest = max(Counter(int(arrival.at) for arrival in arrivals).values())
    mean = sum(arrival.seconds for arrival in arrivals) / len(arrivals) + machine.batch_seconds / machine.max_batch
    return ceil(busiest * mean / UTILISATION)


def simulate(path: Path) -> None:
    """One trace: a table over start-up times, and a plot."""
    arrivals = azure(path, TokenCost())
    most = peak_workers(arrivals, Machine())
    peak = compare.fixed(arrivals, Machine(), most)
    print(
        f"\n### {path.stem}: {len(arrivals):,} requests, late after {compare.LATE_SECONDS:.0f} s,"
        f" at most {most} workers\n"
    )
    print("| start-up | scaler | worker-seconds | late | p50 s | p99 s |\n|---|---|---|---|---|---|")
    _row("–", peak, "for the busiest second: ")
    for start_seconds in START_SECONDS:
        machine = Machine(start_seconds=start_seconds)
        mine, others = compare.ours(arrivals, machine, most), compare.plain(arrivals, machine, most)
        rival = compare.at_equal_cost(mine, others)
        hindsight = compare.fewest_fixed(mine, arrivals, machine, most)
        for run, label in ((mine, ""), (rival, "plain at equal cost: "), (hindsight, "same p99, in hindsight: ")):
            _row(f"{start_seconds:.0f} s", run, label)
        print(
            f"| | → | {1 - mine.cost / peak.cost:.0%} less than for the peak |"
            f" {rival.late / max(1, mine.late):.1f} times fewer than plain | | |"
        )
        if start_seconds == DRAWN_START_SECONDS:
            title = f"{path.stem}, a start takes {start_seconds:.0f} s"
            note = f"Trace: {ATTRIBUTION}"
            draw(Path(__file__).with_name(f"{path.stem}.png"), title, arrivals, [mine, rival, peak], note)


def _row(start: str, run: compare.Run, label: str) -> None:
    p50 = run.outcome.percentile(0.5)
    print(f"| {start} | {label}{run.name} | {run.cost:,.0f} | {run.late:,} | {p50:.2f} | {run.p99:.2f} |", flush=True)


if __name__ == "__main__":
    for name in sys.argv[1:] or sorted(map(str, TRACES.glob("AzureLLM*.csv"))):
        simulate(Path(name))
