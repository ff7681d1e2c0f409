"""What the benchmark makes of its measurements."""

from benchmarks.results import Bar, Cell, Figures, bar_lines, medians, ratio, table


def at(subject: str, rate: float, model: str = "trivial", callers: int = 64) -> tuple[Cell, Figures]:
    return Cell(subject, model, callers), Figures(rate, p50_ms=1000 / rate, p99_ms=2000 / rate, cpu_us=100)


def test_medians_take_each_figure_by_itself() -> None:
    cell = Cell("echo", "trivial", 1)
    runs = [(cell, Figures(10, 3, 30, 7)), (cell, Figures(30, 1, 90, 9)), (cell, Figures(20, 2, 60, 8))]
    assert medians(runs) == {cell: Figures(20, 2, 60, 8)}


def test_a_ratio_compares_within_a_repeat_so_that_a_slow_repeat_does_not_count() -> None:
    # The machine was ten times slower in the second repeat; both sides suffered.
    runs = [at("embedded", 2000), at("echo", 1000), at("embedded", 200), at("echo", 100), at("embedded", 1000)]
    runs.append(at("echo", 1000))
    assert ratio(runs, Bar("embedded", "echo", "trivial", 1.2)) == 2.0


def test_a_bar_without_both_sides_is_not_judged() -> None:
    runs = [at("embedded", 2000), at("triton", 1000, model="mlp"), at("echo", 1000, callers=8)]
    assert bar_lines(runs) == []
    assert ratio(runs, Bar("embedded", "echo", "trivial", 1.2)) is None


def test_a_missed_bar_is_told() -> None:
    lines = bar_lines([at("embedded", 1100), at("echo", 1000), at("rabbitmq", 800)])
    assert lines == [
        "embedded / echo, trivial: 1.10 (bar 1.2, NOT reached)",
        "rabbitmq / echo, trivial: 0.80 (bar 0.7, reached)",
    ]


def test_the_table_has_a_row_for_each_server_and_a_gap_where_nothing_was_measured() -> None:
    cells = dict([at("echo", 2000), at("echo", 500, callers=1), at("embedded", 1000, model="mlp")])
    assert table(cells) == [
        "| model | server | 1 caller | 64 callers |",
        "|---|---|---|---|",
        "| trivial | echo | 500 (2.00 / 4.00) 100 µs | 2,000 (0.50 / 1.00) 100 µs |",
        "| mlp | embedded | – | 1,000 (1.00 / 2.00) 100 µs |",
    ]
