"""Measures Headrace beside other servers, all up at once, cells interleaved so that noise hits all alike.

python -m benchmarks.run [--quick] [--subjects echo,embedded] [--callers 1,64] [--seconds 5] [--repeats 3]
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import subjects, workloads
from benchmarks.processes import cpu_seconds
from benchmarks.results import Cell, Figures, bar_lines, medians, table
from benchmarks.subjects import SkippedError, Started, started
from benchmarks.workloads import Workload
from tests.support.collector import collecting

RESULTS = Path(__file__).parent / "RESULTS.md"
QUICK = {"callers": [64], "seconds": 2.0, "warm_up": 1.0, "repeats": 2}


def say(line: str) -> None:
    """To the terminal, at once."""
    print(line, flush=True)


def measure(
    up: Sequence[Started], asked: Sequence[Workload], folder: Path, options: argparse.Namespace
) -> list[tuple[Cell, Figures]]:
    """All cells, `repeats` times; within one repeat the subjects follow each other directly."""
    runs: list[tuple[Cell, Figures]] = []
    for repeat in range(options.repeats):
        for workload in asked:
            request = folder / f"{workload.name}.request"
            request.write_bytes(workload.request)
            for callers in options.callers:
                for subject in up if repeat % 2 == 0 else reversed(up):
                    if workload.name in subject.models:
                        cell = Cell(subject.name, workload.name, callers)
                        figures = one(subject, request, callers, options.warm_up, options.seconds)
                        runs.append((cell, figures))
                        say(f"{repeat + 1}/{options.repeats} {line(cell, figures)}")
    return runs


def line(cell: Cell, figures: Figures) -> str:
    """One measurement, for the terminal."""
    what = f"{cell.model:8}{cell.callers:3} callers  {cell.subject:9}{figures.rate:8.0f}/s"
    return f"{what}  p50 {figures.p50_ms:7.2f}  p99 {figures.p99_ms:7.2f} ms  cpu {figures.cpu_us:4.0f} µs"


def one(subject: Started, request: Path, callers: int, warm_up: float, seconds: float) -> Figures:
    """One cell, in a client process of its own. Raises CalledProcessError where a call failed."""
    command = [sys.executable, "-m", "benchmarks.load", subject.address, str(request)]
    command += [str(callers), str(warm_up), str(seconds)]
    processes = set(subject.processes)
    before = cpu_seconds(processes)
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    spent = cpu_seconds(processes) - before
    found = json.loads(done.stdout)
    return Figures(cpu_us=spent / found.pop("calls") * 1e6, **found)


def machine() -> str:
    """Processor, cores, and how busy it is: call it before anything is measured."""
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    name = models[0].partition(":")[2].strip() if models else platform.machine()
    load = ", ".join(f"{average:.1f}" for average in os.getloadavg())
    return f"{name}, {os.cpu_count()} cores shared with the client, load before the run {load}"


def report(runs: Sequence[tuple[Cell, Figures]], where: str, notes: Sequence[str], options: argparse.Namespace) -> str:
    """One run as a section of RESULTS.md."""
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    command = f"python -m benchmarks.run {' '.join(sys.argv[1:])}".strip()
    lines = [f"## {now}, commit {commit.stdout.strip() or 'unknown'}", ""]
    lines += [f"{where}. `{command}`", ""]
    lines.append("Requests/s (p50 / p99 in ms) and the processor time of the server's processes for one request;")
    lines += [f"medians of {options.repeats} runs of {options.seconds:g} s.", ""]
    lines += [*table(medians(sorted(runs, key=lambda run: _order(run[0])))), ""]
    lines += [f"- {line}" for line in (*bar_lines(runs), *notes)]
    return "\n".join(lines) + "\n"


def _order(cell: Cell) -> tuple[int, int]:
    models = (workloads.TRIVIAL, workloads.MLP)
    return models.index(cell.model), subjects.NAMES.index(cell.subject)


def main(options: argparse.Namespace) -> None:
    """Starts, measures, prints, appends."""
    os.environ["OMP_NUM_THREADS"] = "1"
    where = machine()
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        asked = [workloads.make(model, folder) for model in options.models]
        collector = stack.enter_context(collecting())
        up: list[Started] = []
        notes: list[str] = []
        for subject in options.subjects:
            say(f"starting {subject} …")
            with ExitStack() as attempt:
                try:
                    up.append(attempt.enter_context(started(subject, folder / subject, asked, collector)))
                except SkippedError as why:
                    notes.append(f"{subject} was skipped: {why}")
                    say(notes[-1])
                stack.push(attempt.pop_all())
        runs = measure(up, asked, folder, options)
        notes += [subject.telemetry() for subject in up if subject.telemetry is not None]
    spans = Counter(service for service, _ in collector.spans)
    sent = ", ".join(f"{count} from {service}" for service, count in sorted(spans.items()))
    notes.append(f"at the collector: spans {sent or 'none'}; metrics of {len(collector.metrics)} names")
    text = report(runs, where, notes, options)
    say(f"\n{text}")
    if options.save:
        with RESULTS.open("a") as results:
            results.write(f"\n{text}")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""

    def words(text: str) -> list[str]:
        return text.split(",")

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subjects", type=words, default=list(subjects.NAMES), help=",".join(subjects.NAMES))
    parser.add_argument("--models", type=words, default=[workloads.TRIVIAL, workloads.MLP])
    parser.add_argument("--callers", type=lambda text: [int(word) for word in words(text)], default=[1, 8, 64])
    parser.add_argument("--seconds", type=float, default=5.0, help="measured time of one cell")
    parser.add_argument("--warm-up", type=float, default=1.5, help="seconds before it")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="64 callers, two short repeats; nothing is saved")
    parser.add_argument("--no-save", dest="save", action="store_false", help="leave RESULTS.md alone")
    quick, _ = parser.parse_known_args(arguments)
    if quick.quick:
        parser.set_defaults(**QUICK, save=False)
    options = parser.parse_args(arguments)
    if unknown := set(options.subjects) - set(subjects.NAMES):
        parser.error(f"unknown subjects {', '.join(sorted(unknown))}; there are {', '.join(subjects.NAMES)}")
    if unknown := set(options.models) - set(workloads.WIDTHS):
        parser.error(f"unknown models {', '.join(sorted(unknown))}; there are {', '.join(workloads.WIDTHS)}")
    return options


if __name__ == "__main__":
    main(parse(sys.argv[1:]))
