"""The example ensemble, text to label, through the whole stack: asked by NVIDIA's client, and traced."""

import json
import secrets
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from headrace import Client
from headrace.client.errors import NotFoundError
from headrace.client.registry import RegistryClient
from tests.e2e.conftest import FRONTS, ready
from tests.e2e.test_clients import PYTHON, ROOT
from tests.e2e.test_telemetry import spans_of
from tests.support.collector import Received, collecting
from tests.support.single import replica, serve_command
from tests.support.stack import RunningStack, running_stack, wait_until

NAMES = ("tokenise", "embed", "classify", "prose")


@pytest.fixture(scope="module")
def collector() -> Iterator[Received]:
    with collecting() as received:
        yield received


@pytest.fixture(scope="module")
def running(collector: Received, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    folder = tmp_path_factory.mktemp("ensembles")
    subprocess.run([sys.executable, "examples/ensemble/make.py", str(folder / "packages")], cwd=ROOT, check=True)
    with running_stack(folder / "data", environment={"HEADRACE_OTLP": collector.endpoint}) as up:
        with RegistryClient(up.address("registry")) as registry, Client(up.address("gateway")) as client:
            for name in NAMES:
                registry.push(name, folder / "packages" / name)
                if name == "classify":
                    registry.set_alias("classify", "good", 1)
            for name in NAMES:
                wait_until(lambda name=name: ready(client, name), name, 60)  # type: ignore[misc]  # mypy on defaults
        yield up


def test_tritonclient(running: RunningStack) -> None:
    command = [str(PYTHON), "tests/clients/triton_ensembles.py", running.address("gateway")]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.parametrize("front", FRONTS)
def test_a_single_replica_serves_it_from_one_process(running: RunningStack, front: str, tmp_path: Path) -> None:
    texts = {"text_input": np.array(["return x", "the quick brown fox"], object)}
    with Client(running.address("gateway")) as client:
        expected = client.infer("prose", texts, timeout=60).outputs
    options = ("--registry", running.address("registry"), "--front", front)
    with replica("prose", tmp_path / "replica", *options) as one, Client(one.grpc) as client:
        result = client.infer("prose", texts, timeout=60)
        assert result.outputs.keys() == expected.keys()
        for name, output in result.outputs.items():
            assert output.shape == expected[name].shape
            assert output.ravel().tolist() == pytest.approx(expected[name].ravel().tolist())
        assert [stage["model"] for stage in result.receipt["stages"]] == list(NAMES[:3])
        with pytest.raises(NotFoundError, match="no model 'embed'"):
            client.infer("embed", texts)
        with urllib.request.urlopen(f"http://{one.http}/console/live") as feed:
            picture = json.loads(feed.readline().removeprefix(b"data: "))
        assert [member["name"] for member in picture["replica"]["members"]] == list(NAMES[:3])
        assert [(model["name"], model["answered"]) for model in picture["status"]["models"]] == [("prose", "1")]


def test_an_ensemble_that_is_not_pushed_is_not_served(tmp_path: Path) -> None:
    command = serve_command("examples/ensemble", "--registry", "127.0.0.1:9")
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2, ended.stderr
    assert "headrace push ensemble examples/ensemble" in ended.stderr


def test_the_receipt_and_the_trace_say_what_each_step_took(running: RunningStack, collector: Received) -> None:
    trace_id = secrets.token_hex(16)
    with Client(running.address("gateway")) as client:
        texts = {"text_input": np.array(["return x"], object)}
        result = client.infer("prose", texts, timeout=60, traceparent=f"00-{trace_id}-{'1' * 16}-01")
    assert [stage["model"] for stage in result.receipt["stages"]] == list(NAMES[:3])
    assert sum(stage["compute_us"] for stage in result.receipt["stages"]) <= result.receipt["compute_us"]
    stages = [f"stage {name}" for name in NAMES[:3]]
    wait_until(lambda: {"compute", *stages} <= spans_of(collector, trace_id).keys(), "the spans of the steps")
    spans = spans_of(collector, trace_id)
    _, compute = spans["compute"]
    for stage in stages:
        assert spans[stage][1].parent_span_id == compute.span_id
    starts = [spans[stage][1].start_time_unix_nano for stage in stages]
    assert starts == sorted(starts)
