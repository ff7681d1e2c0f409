"""The benchmark runs: a short one, on the echo server and the embedded stack."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_a_short_run_measures_and_says_what_telemetry_saw() -> None:
    command = [sys.executable, "-m", "benchmarks.run", "--subjects", "echo,embedded", "--callers", "4,64"]
    command += ["--seconds", "0.3", "--warm-up", "0.3", "--repeats", "1", "--models", "trivial", "--no-save"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("| trivial")]
    assert [row.split("|")[2].strip() for row in rows] == ["echo", "embedded"]
    assert "embedded / echo, trivial: " in done.stdout
    assert "requests in the gateway's metrics" in done.stdout
    assert "from headrace-gateway" in done.stdout
