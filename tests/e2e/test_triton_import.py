"""From a Triton repository to answers: imported and pushed, then called with Triton's own client."""

import json
import subprocess
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from typer.testing import CliRunner

from headrace.cli.main import app
from tests.e2e.test_clients import PYTHON, ROOT
from tests.support.stack import RunningStack
from tests.support.triton_repository import add_model, add_versions


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """One model with a config and three versions, one without a config, one that is refused."""
    add_versions(tmp_path, "t_add")
    add_model(tmp_path, "t_bare")
    add_model(tmp_path, "t_plan", file="model.plan")
    return tmp_path


def test_a_pushed_repository_answers_triton_clients_as_before(stack: RunningStack, repository: Path) -> None:
    assert PYTHON.exists(), "the clients' venv is missing; `make test` makes it, or `make clients`"
    command = ["import-triton", str(repository), "--push", "--json", "--registry", stack.address("registry")]
    first, second = (CliRunner().invoke(app, command) for _ in range(2))
    states = {(row["model"], row["version"]): row["state"] for row in json.loads(first.stdout)}
    assert states == {("t_add", 1): "pushed", ("t_add", 3): "pushed", ("t_bare", 1): "pushed", ("t_plan", 1): "refused"}
    assert first.exit_code == 2
    again = {row["state"] for row in json.loads(second.stdout)}
    assert again == {"there already", "refused"}  # an import that broke off can be run again

    values = np.arange(32, dtype=np.float32).reshape(2, 16)
    for model, version, largest in (("t_add", "1", 8), ("t_add", "3", 8), ("t_bare", "1", 64)):
        file = repository / model / version / "model.onnx"
        (expected,) = ort.InferenceSession(file).run(None, {"x": values})
        caller = [str(PYTHON), "tests/clients/triton_imported.py", stack.address("gateway"), model, version]
        ended = subprocess.run(caller, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
        assert ended.returncode == 0, ended.stderr
        assert json.loads(ended.stdout) == {"y": expected.tolist(), "max_batch_size": largest}
