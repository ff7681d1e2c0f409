"""The GPU's benchmark goes through every line without one, and what it says of times is right."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.llm.gpu.loads import figures
from benchmarks.llm.gpu.report import Report

ROOT = Path(__file__).resolve().parents[2]


def test_a_dry_run_does_every_part_and_writes_what_it_found(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.llm.gpu", "--tiny", "--device", "cpu"]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "OUT": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    parts = json.loads((tmp_path / "gpu.json").read_text())
    assert parts["greedy"]["sequences equal to generate()"] == 48
    assert parts["memory bytes/s"]["read"] > 0
    assert 0 < parts["headrace, CUDA graphs, one sequence"]["fraction"] < 1
    for engine in ("headrace", "headrace, CUDA graphs", "transformers"):
        for callers in (1, 5):
            found = parts[f"{engine}, {callers} callers"]
            assert found["tokens_per_second"] > 0
            assert found["first_p99"] > 0
        assert f"| {engine} | 5 |" in done.stdout


def test_times_of_tokens_become_rates_and_percentiles() -> None:
    # Two callers: first tokens after 1 and 2 seconds, then one of each every half a second.
    found = figures(10.0, [[11.0, 12.0, 12.5, 13.0], [12.0, 12.5, 13.0]])
    assert found.tokens_per_second == pytest.approx(7 / 3)
    assert found.decode_per_second == pytest.approx(4)
    assert (found.first_p50, found.gap_p50) == (1500.0, 500.0)


async def test_a_part_that_fails_is_noted_and_the_others_go_on(tmp_path: Path) -> None:
    async def broken() -> dict[str, int]:
        raise RuntimeError("no such kernel")

    async def sound() -> dict[str, int]:
        return {"tokens": 3}

    report = Report(tmp_path / "gpu.json", seconds=60)
    assert await report.part("first", broken) is None
    assert await report.part("second", sound) == {"tokens": 3}
    late = Report(None, seconds=-1)
    assert await late.part("third", sound) is None
    assert not report.complete
    assert not late.complete
    assert "no such kernel" in json.loads((tmp_path / "gpu.json").read_text())["first"]["failed"]
