"""From measured cells to medians, ratios and a table. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True, order=True)
class Cell:
    """What is measured: one subject, one model, so many callers."""

    subject: str
    model: str
    callers: int


@dataclass(frozen=True, slots=True)
class Figures:
    """One measurement of a cell, or the medians of several.

    Attributes:
        cpu_us: processor time of all the subject's processes for one request, in microseconds; the client's is not in.
    """

    rate: float
    p50_ms: float
    p99_ms: float
    cpu_us: float


@dataclass(frozen=True, slots=True)
class Bar:
    """A ratio that is to be reached: requests/s of one subject over another's, on one model, at 64 callers."""

    subject: str
    other: str
    model: str
    least: float


BAR_CALLERS = 64
BARS = (
    Bar("embedded", "echo", "trivial", 1.2),
    Bar("rabbitmq", "echo", "trivial", 0.7),
    Bar("embedded", "triton", "mlp", 1.0),
    Bar("rabbitmq", "pytriton", "mlp", 1.0),
)


def medians(runs: Iterable[tuple[Cell, Figures]]) -> dict[Cell, Figures]:
    """Of every cell's repeats, each figure by itself."""
    by_cell: defaultdict[Cell, list[Figures]] = defaultdict(list)
    for cell, figures in runs:
        by_cell[cell].append(figures)
    return {
        cell: Figures(
            median(one.rate for one in repeats),
            median(one.p50_ms for one in repeats),
            median(one.p99_ms for one in repeats),
            median(one.cpu_us for one in repeats),
        )
        for cell, repeats in by_cell.items()
    }


def ratio(runs: Sequence[tuple[Cell, Figures]], bar: Bar) -> float | None:
    """The median, over the repeats, of the ratio within a repeat, so that a slow minute hits both sides; None if one
    side was not measured."""
    sides = [
        [figures.rate for cell, figures in runs if cell == Cell(name, bar.model, BAR_CALLERS)]
        for name in (bar.subject, bar.other)
    ]
    if not all(sides):
        return None
    mine, theirs = sides
    return median(one / other for one, other in zip(mine, theirs, strict=True))


def bar_lines(runs: Sequence[tuple[Cell, Figures]]) -> list[str]:
    """One line for each bar that was measured."""
    lines = []
    for bar in BARS:
        if (reached := ratio(runs, bar)) is not None:
            verdict = "reached" if reached >= bar.least else "NOT reached"
            lines.append(f"{bar.subject} / {bar.other}, {bar.model}: {reached:.2f} (bar {bar.least}, {verdict})")
    return lines


def table(figures: dict[Cell, Figures]) -> list[str]:
    """A Markdown table: requests/s (p50 / p99 in ms), processor time; a row for each model and subject."""
    callers = sorted({cell.callers for cell in figures})
    rows = list(dict.fromkeys((cell.model, cell.subject) for cell in figures))
    lines = ["| model | server | " + " | ".join(f"{count} caller{'s' * (count > 1)}" for count in callers) + " |"]
    lines.append("|---|---|" + "---|" * len(callers))
    for model, subject in rows:
        texts = [_text(figures.get(Cell(subject, model, count))) for count in callers]
        lines.append(f"| {model} | {subject} | " + " | ".join(texts) + " |")
    return lines


def _text(figures: Figures | None) -> str:
    if figures is None:
        return "–"
    return f"{figures.rate:,.0f} ({figures.p50_ms:.2f} / {figures.p99_ms:.2f}) {figures.cpu_us:.0f} µs"
