"""Draws workers, backlog and latency over time, one column for each scaler. Needs the extra `bench`."""

from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.autoscaling.arrivals import Arrival
from benchmarks.autoscaling.compare import LATE_SECONDS, Run

BIN_SECONDS = 10.0


def draw(path: Path, title: str, arrivals: list[Arrival], runs: list[Run], note: str) -> None:
    """Writes a PNG."""
    mpl.rcParams["svg.hashsalt"] = "headrace"
    figure = Figure(figsize=(6 * len(runs), 9), layout="constrained")
    axes = figure.subplots(4, len(runs), sharex=True, sharey="row", squeeze=False)
    rate = _binned([(arrival.at, 1.0) for arrival in arrivals])
    for column, run in enumerate(runs):
        samples = run.outcome.samples
        times = [sample[0] / 60 for sample in samples]
        top, workers, backlog, latency = (axes[row][column] for row in range(4))
        top.set_title(f"{run.name}\n{run.cost:,.0f} worker-seconds, {run.late} late, p99 {run.p99:.1f} s", fontsize=10)
        top.plot([at / 60 for at, _ in rate], [count / BIN_SECONDS for _, count in rate], color="0.3", lw=0.8)
        workers.step(times, [sample[1] for sample in samples], where="post", color="tab:blue", lw=1, label="asked for")
        workers.step(times, [sample[2] for sample in samples], where="post", color="tab:green", lw=1, label="ready")
        backlog.plot(times, [sample[3] for sample in samples], color="tab:orange", lw=0.8)
        points = sorted(run.outcome.latencies)
        latency.plot([at / 60 for at, _ in points], [seconds for _, seconds in points], ".", ms=2, color="tab:purple")
        latency.axhline(LATE_SECONDS, color="tab:red", lw=0.8)
        latency.set_xlabel("minutes")
    for row, label in enumerate(("requests/s", "workers", "unanswered", "latency, s")):
        axes[row][0].set_ylabel(label)
    axes[1][0].legend(fontsize=8)
    figure.suptitle(title, fontsize=11)
    figure.text(0.005, 0.002, note, fontsize=7)
    figure.savefig(path, dpi=90, metadata={"Software": ""})


def _binned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    last = int(max(at for at, _ in points) // BIN_SECONDS)
    sums = [0.0] * (last + 1)
    for at, value in points:
        sums[int(at // BIN_SECONDS)] += value
    return [(index * BIN_SECONDS, total) for index, total in enumerate(sums)]
