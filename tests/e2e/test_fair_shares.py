"""Tenants who want more than there is: who is answered how often, counted on a real stack."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace import AsyncClient, Client
from headrace.client.errors import QueueFullError
from headrace.client.registry import RegistryClient
from tests.e2e.conftest import FRONTS, ready
from tests.support.identity import ROW, identity
from tests.support.stack import RunningStack, running_stack, wait_until
from tests.support.tenants import TenantsFile

FLOOD = 300
Shared = tuple[RunningStack, TenantsFile]


@pytest.fixture(
    scope="module", params=["embedded", pytest.param("rabbitmq", marks=pytest.mark.xdist_group("envoy-rabbitmq-s3"))]
)
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    """Two gateways, one worker, and a model that takes 5 ms for each request, one at a time; on each broker."""
    folder = tmp_path_factory.mktemp("shares")
    broker = "" if request.param == "embedded" else request.getfixturevalue("rabbitmq").url
    file = TenantsFile(folder / "tenants.yaml")
    for name in ("flood", "quiet", "even"):
        file.add(name)
    file.add("high", priority=1, write=True)
    file.add("narrow", max_concurrent=3)
    environment = {"HEADRACE_TENANTS": str(file.path)}
    with running_stack(folder / "data", gateways=2, front=FRONTS[1], broker=broker, environment=environment) as running:
        key = file.keys["high"]
        with (
            RegistryClient(running.address("registry"), api_key=key) as registry,
            Client(running.address("gateway"), api_key=key) as client,
        ):
            registry.push("turns", identity(folder / "turns", batch_ms=0, request_ms=5, max_batch_size=1))
            wait_until(lambda: ready(client, "turns"), "the model")
            client.infer("turns", ROW, timeout=30)
        yield running, file


def client_of(shared: Shared, tenant: str, gateway: str = "gateway") -> AsyncClient:
    running, file = shared
    return AsyncClient(running.address(gateway), api_key=file.keys[tenant])


async def answer_all(client: AsyncClient, tenant: str, count: int, answered: list[str]) -> None:
    """So many requests at once; notes each answer when it comes."""

    async def one() -> None:
        await client.infer("turns", ROW, timeout=100)
        answered.append(tenant)

    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(one())


@pytest.mark.parametrize("gateway", ["gateway", "gateway-2"])
async def test_a_flood_is_not_in_front_of_who_sends_little(shared: Shared, gateway: str) -> None:
    """The quiet one may come by another gateway than the flood."""
    answered: list[str] = []
    async with client_of(shared, "flood") as flood, client_of(shared, "quiet", gateway) as quiet:
        flooding = asyncio.create_task(answer_all(flood, "flood", FLOOD, answered))
        await quiet.infer("turns", ROW, timeout=100)  # the flood is under way
        between: list[int] = []
        for _ in range(10):
            before = len(answered)
            await quiet.infer("turns", ROW, timeout=100)
            between.append(len(answered) - before)
        assert len(answered) < FLOOD, "the flood was still there"
        await flooding
    # In one line the first would have waited for the whole flood. Two or three are in the queue and on the device.
    assert sorted(between)[5] <= 8, between
    assert sum(between) < FLOOD / 2, between


async def test_tenants_that_flood_are_answered_by_their_weights(shared: Shared) -> None:
    answered: list[str] = []
    async with client_of(shared, "high") as high, client_of(shared, "even") as even, asyncio.TaskGroup() as group:
        group.create_task(answer_all(even, "even", FLOOD, answered))
        group.create_task(answer_all(high, "high", FLOOD, answered))
    assert len(answered) == 2 * FLOOD, "everybody is answered"
    # While both wait: after the beginning, and before the favoured one has all.
    share = Counter(answered[50:350])
    assert 1.4 < share["high"] / share["even"] < 2.8, share


async def test_a_tenants_limit_of_a_model_is_his_own(shared: Shared, tmp_path: Path) -> None:
    running, file = shared
    package = identity(tmp_path / "small", batch_ms=0, request_ms=20, max_batch_size=1, max_requests=20)
    with RegistryClient(running.address("registry"), api_key=file.keys["high"]) as registry:
        registry.push("small", package)
    refused, full = 0, asyncio.Event()
    async with client_of(shared, "flood") as flood, client_of(shared, "quiet") as quiet:
        with Client(running.address("gateway"), api_key=file.keys["high"]) as client:
            await asyncio.to_thread(wait_until, lambda: ready(client, "small"), "the model")

        async def one() -> None:
            nonlocal refused
            try:
                await flood.infer("small", ROW, timeout=100)
            except QueueFullError as error:
                assert "20 requests of tenant 'flood' waiting or running" in str(error)
                refused += 1
                full.set()

        async with asyncio.TaskGroup() as group:
            for _ in range(60):
                group.create_task(one())
            await asyncio.wait_for(full.wait(), 30)
            await quiet.infer("small", ROW, timeout=100)
    assert refused >= 20


async def test_a_tenant_has_no_more_under_way_than_he_may(shared: Shared) -> None:
    """Beside a flood, in which his few wait for their turns."""
    refused = 0
    answered: list[str] = []
    async with client_of(shared, "flood") as flood, client_of(shared, "narrow") as narrow:
        flooding = asyncio.create_task(answer_all(flood, "flood", FLOOD, answered))
        await narrow.infer("turns", ROW, timeout=100)

        async def one() -> None:
            nonlocal refused
            try:
                await narrow.infer("turns", ROW, timeout=100)
            except QueueFullError as error:
                assert "max_concurrent" in str(error)
                refused += 1

        await asyncio.gather(*(one() for _ in range(30)))
        assert 1 <= refused <= 27, "three at a time are let in, and answered"
        assert len(answered) < FLOOD, "the flood was still there"
        await flooding
