"""The command line against a running stack."""

import json
import os
import select
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from headrace import Client
from headrace.cli.main import app
from tests.support import models
from tests.support.stack import RunningStack, descendants, wait_until


@pytest.fixture
def environment(stack: RunningStack) -> dict[str, str]:
    """Makes the commands find the test's stack."""
    return {
        "HEADRACE_ADDRESS": stack.address("gateway"),
        "HEADRACE_REGISTRY": stack.address("registry"),
        "COLUMNS": "200",
    }


def headrace(environment: dict[str, str], *command: str, expect: int = 0) -> Result:
    """Runs a command in this process."""
    result = CliRunner().invoke(app, list(command), env=environment)
    assert result.exit_code == expect, (result.output, result.exception)
    return result


def answer(environment: dict[str, str], *command: str) -> Any:
    """The JSON that a command prints for scripts."""
    return json.loads(headrace(environment, *command, "--json").stdout)


def test_a_models_life_from_push_to_delete(
    stack: RunningStack, client: Client, environment: dict[str, str], tmp_path: Path
) -> None:
    path = str(models.add_one(tmp_path / "m.onnx"))
    name = f"life-{os.path.basename(tmp_path)}"  # noqa: PTH119  # the stack is shared by the tests
    assert answer(environment, "push", name, path) == {"name": name, "version": 1}
    assert f"{name} version 2 (onnx" in headrace(environment, "push", name, path).stdout
    headrace(environment, "alias", name, "production", "1")
    (listed,) = answer(environment, "models", name)
    assert [int(version["version"]) for version in listed["versions"]] == [1, 2]
    assert {alias: int(number) for alias, number in listed["aliases"].items()} == {"production": 1}
    assert "production" in headrace(environment, "models").stdout

    wait_until(lambda: name in {model.name for model in client.status().models}, "the gateway to hear of it")
    wait_until(lambda: client.model_ready(name, "1"), "a worker to serve it")
    np.save(tmp_path / "x.npy", np.full((2, 16), 3, np.float32))
    inferred = answer(environment, "infer", name, "--input", f"x=@{tmp_path / 'x.npy'}", "--version", "production")
    assert (inferred["model_version"], inferred["outputs"]) == ("1", {"y": [[4.0] * 16] * 2})
    assert "queue" in headrace(environment, "infer", name, "--random").stdout

    headrace(environment, "delete", name, "--version", "2", "--yes")
    headrace(environment, "delete", name, "--yes")
    assert "NOT_FOUND" in headrace(environment, "models", name, expect=2).stderr


def test_status_shows_models_and_workers(stack: RunningStack, client: Client, environment: dict[str, str]) -> None:
    wait_until(lambda: bool(client.status().workers), "the registry to hear of the worker")
    shown = headrace(environment, "status", "--once").stdout
    assert all(word in shown for word in ("add_one", "worker-1", "p99 ms", "registry up", "broker up"))
    state = answer(environment, "status")
    assert state["broker_connected"] is True
    assert {model["name"] for model in state["models"]} >= {"add_one", "double"}


def test_bad_input_says_what_was_expected(environment: dict[str, str], stack: RunningStack) -> None:
    missing = headrace(environment, "infer", "add_one", expect=2).stderr
    assert "inputs ['x'] are missing" in missing
    unknown = headrace(environment, "infer", "add_one", "--input", "z=[1]", expect=2).stderr
    assert "--input 'z=[1]': expected NAME=JSON" in unknown
    assert "NOT_FOUND no model 'nope'" in headrace(environment, "infer", "nope", "--random", expect=2).stderr


def up(data: Path, **ports: int) -> list[str]:
    """A command that runs a stack on free ports but for those given."""
    command = [sys.executable, "-m", "headrace.cli.main", "up", "--data", str(data)]
    for name in ("port", "metrics-port", "http-port", "registry-port", "broker-port", "jobs-port"):
        command += [f"--{name}", str(ports.get(name.replace("-", "_"), 0))]
    return command


@pytest.mark.parametrize("name", ["port", "registry_port", "broker_port"])
def test_up_refuses_a_port_that_is_taken(tmp_path: Path, name: str) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        # With several gateways the embedded broker is a process of its own.
        command = [*up(tmp_path, **{name: port}), "--gateways", "2"]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert f"port {port} on 127.0.0.1 cannot be used" in ended.stderr


def test_no_process_outlives_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    said = tmp_path / "up.log"
    with said.open("w") as log, subprocess.Popen(up(tmp_path / "data"), stderr=log) as supervisor:
        wait_until(lambda: "ready;" in said.read_text() or supervisor.poll() is not None, "the stack to start", 60)
        assert supervisor.poll() is None, said.read_text()
        handles = [os.pidfd_open(pid) for pid in descendants(supervisor.pid)]
        assert len(handles) >= 4
        supervisor.kill()
    for handle in handles:
        # Readable once the process has ended.
        assert select.select([handle], [], [], 20)[0], "a child outlived its supervisor"
        os.close(handle)
