"""From a Triton repository to answers: imported and pushed, then called with Triton's own client."""

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from typer.testing import CliRunner

from headrace.cli.main import app
from tests.e2e.test_clients import PYTHON, ROOT
from tests.support.stack import RunningStack
from tests.support.triton_repository import add_ensemble, add_model, add_versions


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """One model with a config and three versions, one without a config, one that is refused, an ensemble."""
    add_versions(tmp_path, "t_add")
    add_model(tmp_path, "t_bare")
    add_model(tmp_path, "t_plan", file="model.plan")
    add_ensemble(tmp_path, "t_a_chain", "t_add", "t_bare")
    return tmp_path


def test_a_pushed_repository_answers_triton_clients_as_before(stack: RunningStack, repository: Path) -> None:
    assert PYTHON.exists(), "the clients' venv is missing; `make test` makes it, or `make clients`"
    command = ["import-triton", str(repository), "--push", "--json", "--registry", stack.address("registry")]
    first, second = (CliRunner().invoke(app, command) for _ in range(2))
    states = {(row["model"], row["version"]): row["state"] for row in json.loads(first.stdout)}
    pushed = [("t_add", 1), ("t_add", 3), ("t_bare", 1), ("t_a_chain", 1)]
    assert states == {**dict.fromkeys(pushed, "pushed"), ("t_plan", 1): "refused"}
    assert first.exit_code == 2
    again = {row["state"] for row in json.loads(second.stdout)}
    assert again == {"there already", "refused"}  # an import that broke off can be run again

    values = np.arange(32, dtype=np.float32).reshape(2, 16)
    for model, version, largest in (("t_add", "1", 8), ("t_add", "3", 8), ("t_bare", "1", 64), ("t_a_chain", "1", 8)):
        answer = ask(stack, model, version)
        if model == "t_a_chain":
            expected = values + 2
        else:
            file = repository / model / version / "model.onnx"
            (expected,) = ort.InferenceSession(file).run(None, {"x": values})
        assert answer == {
            "y": expected.tolist(),
            "max_batch_size": largest,
            "priority_levels": 3 if model == "t_add" else 0,
        }


def ask(stack: RunningStack, model: str, version: str) -> dict[str, Any]:
    """What Triton's own client gets."""
    caller = [str(PYTHON), "tests/clients/triton_imported.py", stack.address("gateway"), model, version]
    ended = subprocess.run(caller, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert ended.returncode == 0, ended.stderr
    answer: dict[str, Any] = json.loads(ended.stdout)
    return answer
