"""Brokers as real processes, one of each for the session; stores, one of each for a file; and registries on them."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from grpc import aio

from tests.contract.broker_kit import Connections
from tests.support.brokers import BrokerProcess, embedded_broker, rabbitmq_server
from tests.support.registries import Registry, registry
from tests.support.stores import RunningStore, directory, moto_s3, rclone_s3

RUNNERS: dict[str, Callable[[Path], AbstractContextManager[BrokerProcess]]] = {
    "embedded": embedded_broker,
    "rabbitmq": rabbitmq_server,
}


@pytest.fixture(scope="session", params=[pytest.param(kind, marks=pytest.mark.xdist_group(kind)) for kind in RUNNERS])
def broker_process(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    """A broker that tests may kill, so long as they start it again."""
    with RUNNERS[request.param](tmp_path_factory.mktemp(request.param)) as process:
        yield process


@pytest.fixture
async def connections(broker_process: BrokerProcess) -> AsyncIterator[Connections]:
    """Opens connections to the broker."""
    made = Connections(broker_process.url)
    yield made
    await made.close()


@contextmanager
def running(kind: str, folder: Path) -> Iterator[RunningStore]:
    """One of the stores."""
    if kind == "directory":
        yield directory(folder)
        return
    with (rclone_s3 if kind == "rclone" else moto_s3)(folder) as store:
        yield store


@pytest.fixture(scope="module", params=["directory", "rclone", "moto"])
def running_store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStore]:
    """A store that serves, shared by the tests of one file: each keeps to keys of its own."""
    with running(request.param, tmp_path_factory.mktemp(request.param)) as store:
        yield store


@pytest.fixture(scope="module")
def addresses(running_store: RunningStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Two registries on one store."""
    folder = tmp_path_factory.mktemp("registries")
    with (
        registry(running_store, folder / "first.log") as first,
        registry(running_store, folder / "second.log") as second,
    ):
        yield first, second


@pytest.fixture
async def registries(addresses: tuple[str, str]) -> AsyncIterator[tuple[Registry, Registry]]:
    """Clients of both."""
    async with aio.insecure_channel(addresses[0]) as first, aio.insecure_channel(addresses[1]) as second:
        yield Registry(first), Registry(second)
