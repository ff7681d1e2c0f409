"""Both brokers as real processes, one of each for the session."""

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.contract.broker_kit import Connections
from tests.support.brokers import BrokerProcess, embedded_broker, rabbitmq_server

RUNNERS = {"embedded": embedded_broker, "rabbitmq": rabbitmq_server}


@pytest.fixture(scope="session", params=RUNNERS)
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
