"""One stack for each front, shared by the tests of a session."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace import Client
from headrace.client.registry import RegistryClient
from tests.support import models
from tests.support.stack import RunningStack, running_stack, wait_until

FRONTS = ("envoy", "grpc")
MODELS = {
    "add_one": models.add_one,
    "double": models.double,
    "echo_text": models.echo_text,
    "look_up": models.look_up,
    "burn": models.burn,
}


@pytest.fixture(scope="session", params=FRONTS)
def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """A stack with one worker, on each of the two fronts, with all test models pushed and loaded."""
    folder = tmp_path_factory.mktemp(request.param)
    with running_stack(folder / "data", front=request.param) as running:
        push_all(running, folder)
        yield running


@pytest.fixture
def client(stack: RunningStack) -> Iterator[Client]:
    """A client of the stack's gateway."""
    with Client(stack.address("gateway")) as connected:
        yield connected


def push_all(running: RunningStack, folder: Path) -> None:
    """Pushes every test model and waits until each has a worker."""
    with RegistryClient(running.address("registry")) as registry, Client(running.address("gateway")) as connected:
        for name, make in MODELS.items():
            registry.push(name, make(folder / f"{name}.onnx"))
        for name in MODELS:
            wait_until(lambda name=name: ready(connected, name), f"{name} to be ready")  # type: ignore[misc]


def ready(connected: Client, name: str) -> bool:
    """Whether the gateway knows the model and a worker serves it."""
    known = {model.name for model in connected.status().models}
    return name in known and connected.model_ready(name)
