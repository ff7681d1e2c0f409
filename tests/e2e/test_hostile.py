"""Ten thousand malformed requests: each is the caller's fault, says so, and costs the stack nothing."""

import asyncio
import http.client
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from headrace import Client
from headrace.v1 import broker_pb2, fleet_pb2, registry_pb2
from tests.support.brokers import embedded_broker
from tests.support.hostile import OK, HostileCall, hostile_call, method_call
from tests.support.hostile_json import hostile_json
from tests.support.http2 import Answer, http2
from tests.support.stack import RunningStack

# Three stacks share them: 3 * (30 * 110 + 6 * 50) calls.
seeded = settings(
    max_examples=30,
    deadline=None,
    derandomize=True,  # the same ten thousand each time; another seed is another suite
    database=None,
    phases=[Phase.generate],  # a smaller seed is no simpler a call
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
CALLS = 110
# OK, and what a caller hears whose time was over while his request ran: CANCELLED, DEADLINE_EXCEEDED.
RAN = {OK, 1, 4}
ANSWER_SECONDS = 40.0


@pytest.fixture
def unharmed(stack: RunningStack, client: Client) -> Iterator[None]:
    """Whatever the test does, every process lives on, and nothing but what was answered has reached a worker."""
    before = stack.pids()
    yield
    assert stack.pids() == before
    result = client.infer("add_one", {"x": np.ones((1, 16), np.float32)}, timeout=10)
    assert result.outputs["y"].tolist() == [[2.0] * 16]
    assert all(model.in_flight == 0 and model.queued == 0 for model in client.status().models)


async def answers(address: str, calls: list[HostileCall]) -> list[Answer]:
    """All at once on one connection."""
    async with http2(address) as connection, asyncio.timeout(ANSWER_SECONDS):
        return list(await asyncio.gather(*(connection.call(call.headers(), call.body) for call in calls)))


def check(calls: list[HostileCall], found: list[Answer], front: str) -> None:
    """Every call got one of its codes; errors say something."""
    for call, answer in zip(calls, found, strict=True):
        assert answer.grpc_status in call.allowed_on(front), (call, answer)
        assert answer.grpc_status == OK or answer.message, (call, answer)


def requests_run(stack: RunningStack) -> int:
    """Requests that the worker has run, as of now: what it tells the fleet is up to a second old."""
    with urllib.request.urlopen(f"http://{stack.metrics('worker-1')}/metrics", timeout=30) as page:
        lines = page.read().decode().splitlines()
    return sum(
        int(float(line.split()[-1])) for line in lines if line.startswith("headrace_queue_duration_seconds_count")
    )


@pytest.mark.usefixtures("unharmed")
@pytest.mark.timeout(180)
def test_malformed_calls_are_the_callers_fault(stack: RunningStack, client: Client) -> None:
    front = client.status().front
    before = requests_run(stack)
    ran = 0

    @seeded
    @given(st.integers(0, 2**64 - 1))
    def attack(seed: int) -> None:
        nonlocal ran
        random = Random(seed)
        calls = [hostile_call(random) for _ in range(CALLS)]
        # grpc's own server lets headers that it cannot read spoil all later calls of the connection.
        for broken in (False, True):
            some = [call for call in calls if call.transport == broken]
            found = asyncio.run(answers(stack.address("gateway"), some))
            check(some, found, front)
            ran += sum(call.may_run and answer.grpc_status in RAN for call, answer in zip(some, found, strict=True))

    attack()
    assert requests_run(stack) <= before + ran


@pytest.mark.usefixtures("unharmed")
def test_malformed_json_is_the_callers_fault(stack: RunningStack) -> None:
    host, _, port = stack.http().rpartition(":")

    @settings(seeded, max_examples=6)
    @given(st.integers(0, 2**64 - 1))
    def attack(seed: int) -> None:
        random = Random(seed)
        connection = http.client.HTTPConnection(host, int(port), timeout=ANSWER_SECONDS)
        for _ in range(50):
            path, body = hostile_json(random)
            connection.request("POST", path, body, {"content-type": "application/json"})
            response = connection.getresponse()
            said = response.read()
            assert 400 <= response.status < 500 or response.status == 501, (path, body, response.status, said)
        connection.close()

    attack()


SERVICES = {
    "registry": registry_pb2.DESCRIPTOR.services_by_name["RegistryService"],
    "fleet": fleet_pb2.DESCRIPTOR.services_by_name["FleetService"],
    "broker": broker_pb2.DESCRIPTOR.services_by_name["BrokerService"],
}


@pytest.mark.usefixtures("unharmed")
@pytest.mark.parametrize("service", ["registry", "fleet"])
def test_the_registry_bears_garbage_too(stack: RunningStack, service: str) -> None:
    bear_garbage(stack.address("registry"), service)


def test_the_embedded_broker_bears_garbage(tmp_path: Path) -> None:
    with embedded_broker(tmp_path) as broker:
        bear_garbage(f"127.0.0.1:{broker.port}", "broker")


def bear_garbage(address: str, service: str) -> None:
    @settings(seeded, max_examples=8)
    @given(st.integers(0, 2**64 - 1))
    def attack(seed: int) -> None:
        random = Random(seed)
        calls = [method_call(random, SERVICES[service]) for _ in range(40)]
        check(calls, asyncio.run(answers(address, calls)), "grpc")

    attack()
