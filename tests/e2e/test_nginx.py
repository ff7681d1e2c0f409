"""Debian's nginx before a single replica, with the configuration of deploy/nginx, on both fronts."""

import json
import queue
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from headrace import Client
from headrace.client.errors import DeadlineExceededError, QueueFullError
from headrace.inference import grpc_service_pb2 as pb
from headrace.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from tests.e2e.conftest import FRONTS
from tests.support import models
from tests.support.single import Replica, nginx, replica
from tests.support.stack import wait_until


@pytest.fixture(scope="module", params=FRONTS)
def front(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def proxied(front: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Replica, str, str]]:
    """A replica of `x FP32 [N, length] → -x`, and nginx's two addresses."""
    folder = tmp_path_factory.mktemp(f"nginx-{front}")
    package = models.free_axes(folder / "negative.onnx")
    with (
        replica(str(package), folder / "replica", "--front", front) as one,
        nginx([one.grpc], [one.http], folder / "nginx") as addresses,
    ):
        yield one, *addresses


def test_unary_calls_leave_a_latency_line_each(proxied: tuple[Replica, str, str]) -> None:
    one, address, _ = proxied
    before = len(one.latency_lines())
    with Client(address) as client:
        for number in range(5):
            x = np.full((2, 3), number, np.float32)
            assert client.infer("negative", x, timeout=20).outputs["y"].tolist() == (-x).tolist()
    assert len(one.latency_lines()) == before + 5


def test_a_large_message_passes_and_one_over_the_limit_gets_grpcs_own_status(
    proxied: tuple[Replica, str, str],
) -> None:
    with Client(proxied[1]) as client:
        x = np.ones((1, 5_000_000), np.float32)
        assert (client.infer("negative", x, timeout=60).outputs["y"] == -1).all()
        with pytest.raises(QueueFullError):  # RESOURCE_EXHAUSTED
            client.infer("negative", np.ones((1, 17_000_000), np.float32), timeout=60)


def test_a_stream_takes_turns(proxied: tuple[Replica, str, str]) -> None:
    request = pb.ModelInferRequest(model_name="negative")
    request.inputs.add(name="x", datatype="FP32", shape=[1, 1]).contents.fp32_contents.append(5)
    answered = threading.Semaphore(1)

    def in_turn() -> Iterator[pb.ModelInferRequest]:
        for _ in range(10):
            assert answered.acquire(timeout=20)
            yield request

    with grpc.insecure_channel(proxied[1]) as channel:
        values = []
        for answer in GRPCInferenceServiceStub(channel).ModelStreamInfer(in_turn(), timeout=60):
            values.append(np.frombuffer(answer.infer_response.raw_output_contents[0], np.float32)[0])
            answered.release()
    assert values == [-5.0] * 10


def test_http_and_health(proxied: tuple[Replica, str, str]) -> None:
    http = f"http://{proxied[2]}"
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [[1, 2]]}]}
    with urllib.request.urlopen(f"{http}/v2/models/negative/infer", json.dumps(body).encode(), timeout=20) as response:
        assert json.load(response)["outputs"][0]["data"] == [-1, -2]
    with urllib.request.urlopen(f"{http}/health", timeout=20) as response:
        assert response.status == 200


def test_a_deadline_passes_through(front: str, tmp_path: Path) -> None:
    burn = str(models.burn(tmp_path / "burn.onnx"))
    with (
        replica(burn, tmp_path / "replica", "--front", front) as one,
        nginx([one.grpc], [one.http], tmp_path / "nginx") as (address, _),
        Client(address) as client,
        pytest.raises(DeadlineExceededError),
    ):
        client.infer("burn", {"turns": np.array(5_000)}, timeout=0.3)


def test_a_replica_that_drains_ends_what_it_has_and_is_then_unavailable(front: str, tmp_path: Path) -> None:
    package = str(models.double(tmp_path / "double.onnx"))
    request = pb.ModelInferRequest(model_name="double")
    request.inputs.add(name="x", datatype="INT64", shape=[1, 1]).contents.int64_contents.append(21)
    with (
        replica(package, tmp_path / "replica", "--front", front) as one,
        nginx([one.grpc], [one.http], tmp_path / "nginx") as (address, http),
        grpc.insecure_channel(address) as channel,
    ):
        stub, more = GRPCInferenceServiceStub(channel), queue.Queue[pb.ModelInferRequest | None]()
        answers = stub.ModelStreamInfer(iter(more.get, None), timeout=60)
        more.put(request)
        assert not next(answers).error_message
        one.process.terminate()
        wait_until(lambda: "shutting down" in told(stub, request), "new calls to be refused")
        more.put(request)  # the open stream goes on
        assert np.frombuffer(next(answers).infer_response.raw_output_contents[0], np.int64).tolist() == [42]
        more.put(None)
        assert list(answers) == []
        assert one.process.wait(60) == 0
        assert told(stub, request) == "nginx cannot reach the replica"
        with pytest.raises(urllib.error.HTTPError) as gone:
            urllib.request.urlopen(f"http://{http}/health", timeout=20)
        assert gone.value.code == 502
        gone.value.close()


def told(stub: GRPCInferenceServiceStub, request: pb.ModelInferRequest) -> str:
    """What a call that is not answered hears; nothing if it is."""
    try:
        stub.ModelInfer(request, timeout=20)
    except grpc.RpcError as error:
        failed: Any = error  # grpc's stubs do not say that it is the call, too
        assert failed.code() == grpc.StatusCode.UNAVAILABLE
        return str(failed.details())
    return ""
