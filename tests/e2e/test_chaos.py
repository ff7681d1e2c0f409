"""The law: accepted = answered + failed with a clear error, whatever process is killed under load."""

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from headrace import AsyncClient, Client
from headrace.client.registry import RegistryClient
from tests.e2e.conftest import STACKS, ready
from tests.support import models
from tests.support.brokers import rabbitmq_server
from tests.support.load import CALLERS, calling, several, steady_load
from tests.support.single import nginx
from tests.support.stack import RunningStack, running_stack, wait_until
from tests.support.stores import rclone_s3

WORKERS = ("worker-1", "worker-2")
GATEWAYS = ("gateway", "gateway-2")


@dataclass(frozen=True, slots=True)
class Victims:
    """A stack of two gateways and two workers, and the end of any of its processes."""

    stack: RunningStack
    broker: Callable[[signal.Signals], None] | None

    def hurt(self, name: str, number: signal.Signals) -> None:
        """Ends a process by a signal and waits until it is up again."""
        if name == "broker" and self.broker is not None:
            self.broker(number)
        else:
            self.stack.signal(name, number)

    def status(self, gateway: str = "gateway") -> list[tuple[int, int]]:
        """What one gateway's queue holds and each worker runs; as much as there are workers."""
        with Client(self.stack.address(gateway)) as client:
            state = client.status()
        return [(sum(model.queued + model.in_flight for model in state.models), w.running) for w in state.workers]

    async def until_in_flight(self, gateway: str, count: int) -> None:
        """Until a gateway has accepted so many requests and answered none of them."""
        async with AsyncClient(self.stack.address(gateway)) as client, asyncio.timeout(30):
            while sum(model.in_flight for model in (await client.status()).models) != count:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    @contextmanager
    def workers_stopped(self) -> Iterator[None]:
        """They are there but do nothing, until the block ends."""
        pids = [self.stack.pid(name) for name in WORKERS]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)

    def is_steady(self) -> bool:
        """Everybody is there and nobody has anything to do."""
        return all(self.status(name) == [(0, 0)] * len(WORKERS) for name in GATEWAYS)


def answered(address: str) -> int:
    """Requests that one gateway has answered since its start."""
    with Client(address) as client:
        return sum(stats.inference_stats.success.count for stats in client.statistics("add_one"))


@pytest.fixture(scope="module", params=STACKS)
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victims]:
    """One stack of each kind for all tests: it must survive them all."""
    front, *real_parts = request.param.split("-")
    folder = tmp_path_factory.mktemp(f"chaos-{request.param}")
    with ExitStack() as parts:
        environment, broker_url, store_url, end_broker = {}, "", "", None
        if real_parts:
            broker = parts.enter_context(rabbitmq_server(tmp_path_factory.mktemp("rabbitmq")))
            store = parts.enter_context(rclone_s3(folder / "s3"))
            environment, broker_url, store_url = dict(store.environment), broker.url, store.url

            def end_broker(number: signal.Signals) -> None:
                broker.kill() if number == signal.SIGKILL else broker.stop()
                broker.start()

        up = parts.enter_context(
            running_stack(
                folder / "data",
                workers=2,
                gateways=2,
                front=front,
                broker=broker_url,
                store=store_url,
                environment=environment,
            )
        )
        with RegistryClient(up.address("registry")) as registry:
            registry.push("add_one", models.add_one(folder / "add_one.onnx"))
        for name in GATEWAYS:
            with Client(up.address(name)) as client:
                wait_until(lambda client=client: ready(client, "add_one"), "the model")  # type: ignore[misc]
        yield Victims(up, end_broker)


@pytest.fixture
def victims(running: Victims) -> Victims:
    """The stack, recovered from the last test."""
    wait_until(running.is_steady, "the stack to be steady")
    return running


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("worker-1", signal.SIGKILL),
        ("worker-1", signal.SIGTERM),
        ("broker", signal.SIGKILL),
        ("broker", signal.SIGTERM),
        ("registry", signal.SIGKILL),
        ("registry", signal.SIGTERM),
    ],
)
async def test_nothing_accepted_is_lost(victims: Victims, name: str, number: signal.Signals) -> None:
    async with steady_load(victims.stack.address("gateway")) as count:
        await count.answered(500)
        await asyncio.to_thread(victims.hurt, name, number)
        await count.answered(1000)
    assert count.balanced()
    assert (count.wrong, count.errors) == (0, {})


async def test_gateways_share_queue_and_workers_and_each_gets_its_own_answers(victims: Victims) -> None:
    first, second = (victims.stack.address(name) for name in GATEWAYS)
    async with steady_load(first) as ours, steady_load(second) as theirs:
        await ours.answered(500)
        await theirs.answered(500)
    for count in (ours, theirs):
        assert (count.wrong, count.errors) == (0, {})


async def test_a_killed_gateway_takes_only_its_own_callers_along(victims: Victims) -> None:
    killed, spared = (victims.stack.address(name) for name in GATEWAYS)
    async with steady_load(killed, retries=False) as lost, steady_load(spared, retries=False) as kept:
        with victims.workers_stopped():
            for name in GATEWAYS:
                await victims.until_in_flight(name, CALLERS)
            await asyncio.to_thread(victims.hurt, "gateway", signal.SIGKILL)
        await lost.answered(300)
        await kept.answered(300)
    assert (kept.wrong, kept.errors) == (0, {})
    assert lost.balanced()
    assert lost.wrong == 0
    assert {error.partition(":")[0] for error in lost.errors} == {"UNAVAILABLE"}
    assert lost.errors.total() >= CALLERS
    # What the workers owed the dead one is dropped, not kept.
    await asyncio.to_thread(wait_until, victims.is_steady, "the workers to be rid of its requests")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_callers_that_know_both_gateways_see_no_error(victims: Victims, number: signal.Signals) -> None:
    both = several(*(victims.stack.address(name) for name in GATEWAYS))
    async with steady_load(both) as count:
        await count.answered(500)
        await asyncio.to_thread(victims.hurt, "gateway-2", number)
        await count.answered(1000)
    assert count.balanced()
    assert (count.wrong, count.errors) == (0, {})


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_callers_behind_nginx_see_no_error_when_a_gateway_goes(
    victims: Victims, tmp_path: Path, number: signal.Signals
) -> None:
    addresses = [victims.stack.address(name) for name in GATEWAYS]
    before = [answered(address) for address in addresses]
    with nginx(addresses, addresses, tmp_path) as (balancer, _):
        async with steady_load(balancer) as count:
            await count.answered(500)
            # Calls are spread, though there is one connection.
            now = [await asyncio.to_thread(answered, address) for address in addresses]
            shares = [after - earlier for after, earlier in zip(now, before, strict=True)]
            assert min(shares) > sum(shares) / 4
            await asyncio.to_thread(victims.hurt, "gateway-2", number)
            await count.answered(1000)
    assert count.balanced()
    assert (count.wrong, count.errors) == (0, {})


async def test_a_drained_gateway_answers_what_it_accepted_and_refuses_what_comes(victims: Victims) -> None:
    before = victims.stack.pid("gateway")
    async with calling(victims.stack.address("gateway"), retries=False) as caller:
        with victims.workers_stopped():
            asked = [asyncio.create_task(caller.ask(number)) for number in range(CALLERS)]
            await victims.until_in_flight("gateway", CALLERS)
            os.kill(before, signal.SIGTERM)
            while "shutting down" not in (answer := await caller.ask(0.0, timeout=0.2)):
                assert answer.startswith("DEADLINE_EXCEEDED"), answer  # the signal is still on its way
        assert answer.startswith("UNAVAILABLE")
        assert await asyncio.gather(*asked) == ["right"] * CALLERS
    await asyncio.to_thread(wait_until, lambda: victims.stack.pid("gateway") != before, "the gateway to be up again")


async def test_without_a_worker_every_request_fails_at_its_deadline(victims: Victims) -> None:
    async with calling(victims.stack.address("gateway"), retries=True) as caller:
        with victims.workers_stopped():
            timeouts = [0.2 + number % 8 / 10 for number in range(CALLERS)]
            answers = await asyncio.gather(*(caller.ask(1.0, timeout) for timeout in timeouts))
        assert {answer.partition(":")[0] for answer in answers} == {"DEADLINE_EXCEEDED"}
        assert await caller.ask(1.0) == "right"
