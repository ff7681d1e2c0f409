"""`headrace serve`: a single replica of a path, or of a name, a version or an alias in the registry."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from headrace import Client
from headrace.client.errors import NotFoundError
from headrace.client.registry import RegistryClient
from tests.e2e.conftest import FRONTS
from tests.support import models
from tests.support.single import replica, serve_command
from tests.support.stack import RunningStack

ONES = np.ones((1, 16), np.float32)


@pytest.mark.parametrize("front", FRONTS)
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_package_on_this_machine(front: str, kind: str, tmp_path: Path) -> None:
    package = tmp_path / "plus"
    package.mkdir()
    file = models.add_one(package / "plus.onnx")
    (package / "model.yaml").write_text("batching: {max_batch_size: 4}\n")
    path = file if kind == "file" else package
    with replica(str(path), tmp_path / "replica", "--front", front) as one, Client(one.grpc) as client:
        assert client.infer("plus", ONES, timeout=20).outputs["y"].tolist() == [[2.0] * 16]
        assert client.model_ready("plus")
        with pytest.raises(NotFoundError, match="no model 'minus'"):
            client.infer("minus", {"x": ONES})
        assert len(one.latency_lines()) == 1


@pytest.mark.parametrize(("wanted", "version"), [("", "2"), (":1", "1"), (":first", "1")])
def test_a_model_in_the_registry(stack: RunningStack, tmp_path: Path, wanted: str, version: str) -> None:
    address = stack.address("registry")
    with RegistryClient(address) as registry:
        if "served" not in {model.name for model in registry.models()}:
            for _ in range(2):
                registry.push("served", models.add_one(tmp_path / "m.onnx"))
            registry.set_alias("served", "first", 1)
    with replica(f"served{wanted}", tmp_path / "replica", "--registry", address) as one, Client(one.grpc) as client:
        result = client.infer("served", ONES, timeout=20)
        assert (result.model_version, result.outputs["y"][0, 0]) == (version, 2.0)


def test_requests_run_one_at_a_time_and_each_leaves_a_latency_line(tmp_path: Path) -> None:
    with replica(str(models.add_one(tmp_path / "m.onnx")), tmp_path / "replica") as one, Client(one.grpc) as client:
        with ThreadPoolExecutor(16) as pool:
            results = list(pool.map(lambda _: client.infer("m", ONES, timeout=20), range(64)))
        assert {result.receipt["batch_requests"] for result in results} == {1}
        assert len(one.latency_lines()) == 64


def test_status_shows_what_a_single_replica_has(tmp_path: Path) -> None:
    with replica(str(models.add_one(tmp_path / "m.onnx")), tmp_path / "replica") as one, Client(one.grpc) as client:
        client.infer("m", ONES, timeout=20)
        [model] = client.status().models
        assert (model.name, model.answered, dict(model.batch_sizes)) == ("m", 1, {1: 1})
        command = [sys.executable, "-m", "headrace.cli.main", "status", "--once", "--address", one.grpc]
        shown = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    assert "single replica" in shown
    assert not {"queued", "workers", "broker"} & set(shown.split())


@pytest.mark.parametrize("front", FRONTS)
@pytest.mark.parametrize(
    ("model", "code", "said"),
    [
        ("no/such/model.onnx", 2, "there is no file or folder 'no/such/model.onnx'"),
        ("broken.onnx", 2, "broken.onnx"),
        ("nobody", 3, "'nobody' is no file or folder here, and there is no registry at 127.0.0.1:9"),
    ],
)
def test_a_model_that_cannot_be_had(front: str, model: str, code: int, said: str, tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"no graph")
    command = serve_command(model, "--front", front, "--registry", "127.0.0.1:9")
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == code, ended.stderr
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(("model", "said"), [("nope", "no model 'nope'"), ("add_one:7", "no version or alias '7'")])
def test_a_name_that_the_registry_does_not_know(stack: RunningStack, model: str, said: str) -> None:
    command = serve_command(model, "--registry", stack.address("registry"))
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2, ended.stderr
    assert said in ended.stderr
