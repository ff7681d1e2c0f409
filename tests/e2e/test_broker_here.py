"""The embedded broker where it lives in the gateway: who may attach to it, and what its end costs."""

import signal
from collections.abc import Iterator

import grpc
import numpy as np
import pytest

from headrace import Client
from headrace.client.errors import HeadraceError
from headrace.client.registry import RegistryClient
from headrace.v1.broker_pb2 import BrokerServiceAttachRequest, Consume, Operation
from headrace.v1.broker_pb2_grpc import BrokerServiceStub
from tests.e2e.conftest import ready
from tests.support import models
from tests.support.stack import RunningStack, running_stack, wait_until

ROW = {"x": np.ones((1, 16), np.float32)}


@pytest.fixture(scope="module", params=["envoy", "grpc"])
def here(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """A stack with one gateway and two workers."""
    folder = tmp_path_factory.mktemp(f"here-{request.param}")
    with running_stack(folder / "data", workers=2, front=request.param) as running:
        with RegistryClient(running.address("registry")) as registry, Client(running.address("gateway")) as client:
            registry.push("add_one", models.add_one(folder / "add_one.onnx"))
            wait_until(lambda: ready(client, "add_one"), "the model")
        yield running


def answered(client: Client) -> bool:
    try:
        np.testing.assert_array_equal(client.infer("add_one", ROW, timeout=5).outputs["y"], ROW["x"] + 1)
    except HeadraceError:
        return False
    return True


def test_there_is_no_process_for_it(here: RunningStack) -> None:
    assert "broker" not in here.processes()
    with Client(here.address("gateway")) as client:
        assert answered(client)


@pytest.mark.parametrize("metadata", [(), (("headrace-broker-token", "guessed"),)])
def test_nobody_reads_the_queue_without_its_token(here: RunningStack, metadata: tuple[tuple[str, str], ...]) -> None:
    consume = Operation(tag=1, consume=Consume(consumer=1, queue="headrace.add_one.1", prefetch=1))
    with grpc.insecure_channel(here.address("gateway")) as channel:
        frames = iter([BrokerServiceAttachRequest(operations=[consume])])
        with pytest.raises(grpc.RpcError) as refused:
            list(BrokerServiceStub(channel).Attach(frames, metadata=metadata, timeout=10))
    assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
    assert "HEADRACE_BROKER" in (refused.value.details() or "")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_workers_find_it_again_when_the_gateway_was_started_anew(here: RunningStack, number: signal.Signals) -> None:
    before, workers = here.pid("gateway"), [here.pid("worker-1"), here.pid("worker-2")]
    here.signal("gateway", number)
    wait_until(lambda: here.pid("gateway") not in (0, before), "a new gateway")
    with Client(here.address("gateway")) as client:
        wait_until(lambda: answered(client), "an answer")
        wait_until(lambda: [model.consumers for model in client.status().models] == [2], "both workers")
    assert workers == [here.pid("worker-1"), here.pid("worker-2")]


def test_a_killed_workers_requests_go_to_the_other(here: RunningStack) -> None:
    with Client(here.address("gateway")) as client:
        wait_until(lambda: [model.consumers for model in client.status().models] == [2], "both workers")
        here.signal("worker-1", signal.SIGKILL)
        for _ in range(50):
            np.testing.assert_array_equal(client.infer("add_one", ROW, timeout=20).outputs["y"], ROW["x"] + 1)
