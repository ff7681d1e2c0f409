"""The stacks that the tests of a session share: each front on the embedded parts, and one on RabbitMQ and S3."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from headrace import Client
from headrace.client.registry import RegistryClient
from tests.support import models
from tests.support.brokers import BrokerProcess, rabbitmq_server
from tests.support.house import House, a_house
from tests.support.openai_server import openai_package, openai_server
from tests.support.stack import RunningStack, running_stack, wait_until
from tests.support.stores import rclone_s3

FRONTS = ("envoy", "grpc")
STACKS = (*FRONTS, "envoy-rabbitmq-s3")
# Who uses the same kind, and so the same RabbitMQ, runs in the same process.
MARKED_STACKS = [pytest.param(kind, marks=pytest.mark.xdist_group(kind)) for kind in STACKS]
MODELS = {
    "add_one": models.add_one,
    "double": models.double,
    "echo_text": models.echo_text,
    "look_up": models.look_up,
    "burn": models.burn,
}


@pytest.fixture(scope="session")
def rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    """One server for all who do it no harm; it takes seconds to start."""
    with rabbitmq_server(tmp_path_factory.mktemp("rabbitmq")) as broker:
        yield broker


@pytest.fixture(scope="session", params=MARKED_STACKS)
def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """A stack with one worker, of each kind, with all test models pushed and loaded."""
    folder = tmp_path_factory.mktemp(request.param)
    with stack_of(request, folder) as running:
        push_all(running, folder)
        yield running


@contextmanager
def stack_of(
    request: pytest.FixtureRequest, folder: Path, *, workers: int = 1, environment: Mapping[str, str] | None = None
) -> Iterator[RunningStack]:
    """A stack of the kind that a fixture's parameter names: a front on the embedded parts, or on RabbitMQ and S3."""
    front, *real_parts = request.param.split("-")
    more: dict[str, Any] = {}
    with ExitStack() as parts:
        if real_parts:
            broker = request.getfixturevalue("rabbitmq")
            store = parts.enter_context(rclone_s3(folder / "s3"))
            more = {"broker": broker.url, "store": store.url}
            environment = {**store.environment, **(environment or {})}
        yield parts.enter_context(
            running_stack(folder / "data", workers=workers, front=front, environment=environment, **more)
        )


@pytest.fixture(scope="session", params=FRONTS)
def house(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A stack with tenants, on each front, with `add_one` and the language model `words`."""
    folder = tmp_path_factory.mktemp(f"tenants-{request.param}")
    with openai_server(0.001) as server, a_house(folder, request.param) as house:
        with house.registry("operator") as registry, house.client("operator") as client:
            registry.push("add_one", models.add_one(folder / "add_one.onnx"))
            registry.push("words", openai_package(folder / "words", server))
            wait_until(lambda: ready(client, "add_one") and ready(client, "words"), "the models")
        yield house


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
