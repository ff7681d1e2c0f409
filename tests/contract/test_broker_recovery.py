"""Broken connections and restarted brokers: queues and consumers come back by themselves, on both adapters."""

import asyncio
import uuid
from collections.abc import Callable
from functools import partial

import aiormq
import pytest

from headrace.cli.ports import free_port
from services.common.broker import connect as connect_module
from services.common.broker.connect import connect
from services.common.broker.port import Broker, Delivery, Depth, Message, QueueFull, QueueSpec, Unavailable
from services.common.errors import FailedPrecondition, InvalidArgument, TooLarge
from tests.contract.broker_kit import (
    WAIT_SECONDS,
    Connections,
    Inbox,
    publish,
    queue,
    until,
    until_consumers,
    until_depth,
)
from tests.support.brokers import BrokerProcess, RabbitProcess
from tests.support.proxy import proxy


class Restored:
    """Counts on_restored and waits for it."""

    def __init__(self) -> None:
        self.count = 0
        self._again = asyncio.Event()

    def __call__(self) -> None:
        self.count += 1
        self._again.set()

    async def wait(self) -> None:
        """For the next call."""
        await asyncio.wait_for(self._again.wait(), WAIT_SECONDS)
        self._again.clear()


async def _disconnected(broker: Broker) -> bool:
    return not broker.connected  # type: ignore[attr-defined]


async def test_a_killed_broker_comes_back_with_queues_and_consumers(
    broker_process: BrokerProcess, connections: Connections
) -> None:
    publisher_restored, worker_restored = Restored(), Restored()
    publisher, worker = (
        await connections(on_restored=publisher_restored),
        await connections(on_restored=worker_restored),
    )
    name = await queue(publisher, max_length=4)
    await worker.declare(QueueSpec(name, max_length=4))
    high, low = Inbox(), Inbox()
    await worker.consume(name, high, prefetch=2, priority=5)
    await worker.consume(name, low, prefetch=2)
    await publish(publisher, name, b"held")
    held = await high.next()

    await asyncio.to_thread(broker_process.kill)
    await until(lambda: _disconnected(publisher), "the publisher to notice")
    with pytest.raises(Unavailable):
        await publisher.publish(name, Message(b"lost"))
    held.ack()  # of a connection that is gone: nothing happens
    await asyncio.to_thread(broker_process.start)
    await publisher_restored.wait()
    await worker_restored.wait()

    await until_depth(publisher, name, Depth(0, 2))
    await publish(publisher, name, b"1", b"2", b"3", b"4")
    first = [await high.next(), await high.next()]
    assert [delivery.message.body for delivery in first] == [b"1", b"2"]
    held_low = [await low.next(), await low.next()]
    await publish(publisher, name, *[b"x"] * 4)
    with pytest.raises(QueueFull):
        await publish(publisher, name, b"over the limit that was restored, too")
    for delivery in first + held_low:
        delivery.ack()
    assert sorted(await high.bodies(2) + await low.bodies(2)) == [b"x"] * 4
    assert (publisher_restored.count, worker_restored.count) == (1, 1)


async def test_a_cut_connection_redelivers_to_the_restored_consumer(
    broker_process: BrokerProcess, connections: Connections
) -> None:
    publisher = await connections()
    name = await queue(publisher)
    restored, inbox = Restored(), Inbox()
    async with proxy(broker_process.port) as between:
        worker = await connections(broker_process.url_through(between.port), restored)
        await worker.declare(QueueSpec(name))
        await worker.consume(name, inbox, prefetch=10)
        await publish(publisher, name, b"1", b"2")
        stale = [await inbox.next(), await inbox.next()]
        between.cut()
        await restored.wait()
        again = [await inbox.next(), await inbox.next()]
        assert [(delivery.message.body, delivery.redelivered) for delivery in again] == [(b"1", True), (b"2", True)]
        for delivery in stale:
            delivery.ack()  # must not settle what now has its number
        again[1].ack()
        again[0].requeue()
        assert await inbox.bodies(1) == [b"1"]
        await until_depth(publisher, name, Depth(0, 1))
        await worker.close()


def _recorder(labels: set[bytes]) -> Callable[[Delivery], None]:
    def record(delivery: Delivery) -> None:
        labels.add(delivery.message.body)
        delivery.ack()

    return record


async def _all_saw(publisher: Broker, names: list[str], seen: list[set[bytes]], label: bytes) -> bool:
    """Publishes one for each consumer; whether all have had one of this label by now."""
    for name in names:
        await publish(publisher, name, *[label] * 4)
    return all(label in labels for labels in seen)


async def test_no_consumer_is_lost_over_many_cuts(broker_process: BrokerProcess, connections: Connections) -> None:
    observer = await connections()
    restored = Restored()
    async with proxy(broker_process.port) as between:
        worker = await connections(broker_process.url_through(between.port), restored)
        names = [await queue(worker) for _ in range(3)]
        seen: list[set[bytes]] = [set() for _ in range(12)]
        for number, labels in enumerate(seen):
            await worker.consume(names[number % 3], _recorder(labels), prefetch=1)
        for turn in range(6):
            between.cut()
            await restored.wait()
            for name in names:
                await until_consumers(observer, name, 4)
            await until(partial(_all_saw, observer, names, seen, b"%d" % turn), "every consumer to be served")
        assert restored.count == 6
        await worker.close()


async def test_publishes_under_way_fail_clearly_when_the_connection_is_cut(
    broker_process: BrokerProcess, connections: Connections
) -> None:
    observer = await connections()
    name = await queue(observer)
    restored = Restored()
    async with proxy(broker_process.port) as between:
        publisher = await connections(broker_process.url_through(between.port), restored)
        under_way = [asyncio.create_task(publisher.publish(name, Message(b"x" * 10_000))) for _ in range(200)]
        await asyncio.sleep(0)
        between.cut()
        async with asyncio.timeout(WAIT_SECONDS):
            results = await asyncio.gather(*under_way, return_exceptions=True)
        assert all(result is None or isinstance(result, Unavailable) for result in results)
        await restored.wait()
        confirmed = sum(result is None for result in results)
        assert (await observer.depth(name)).ready >= confirmed
        await publisher.publish(name, Message(b"and on"))
        await publisher.close()


async def test_nobody_there_is_unavailable_and_says_what_to_do(
    broker_process: BrokerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connect_module, "PATIENCE_SECONDS", 0.5)
    port = free_port()
    with pytest.raises(Unavailable, match=f"127.0.0.1:{port}"):
        await connect(broker_process.url_through(port), name="contract")


async def test_other_urls_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="redis"):
        await connect("redis://127.0.0.1", name="contract")


@pytest.fixture
def rabbit(broker_process: BrokerProcess) -> RabbitProcess:
    """Of what RabbitMQ alone does."""
    assert isinstance(broker_process, RabbitProcess)
    return broker_process


only_rabbitmq = pytest.mark.parametrize("broker_process", ["rabbitmq"], indirect=True)


@only_rabbitmq
async def test_a_consumer_that_rabbitmq_cancels_is_restored(rabbit: RabbitProcess, connections: Connections) -> None:
    broker = await connections()
    name = await queue(broker)
    inbox = Inbox()
    await broker.consume(name, inbox, prefetch=1)
    admin = await aiormq.connect(rabbit.url)
    await (await admin.channel()).queue_delete(name)
    await admin.close()

    async def back() -> bool:
        try:
            await broker.publish(name, Message(b"after"))
        except Exception:
            return False
        return True

    await until(back, "the queue to be declared again")
    assert await inbox.bodies(1) == [b"after"]


@only_rabbitmq
async def test_durable_messages_outlive_a_restart(rabbit: RabbitProcess, connections: Connections) -> None:
    restored = Restored()
    broker = await connections(on_restored=restored)
    name = await queue(broker, durable_messages=True)
    await publish(broker, name, b"kept")
    # In order: after kill -9 a one-node quorum queue of RabbitMQ 3.10 was seen to stay without a leader for minutes.
    await asyncio.to_thread(rabbit.stop)
    await asyncio.to_thread(rabbit.start)
    await restored.wait()
    inbox = Inbox()
    await broker.consume(name, inbox, prefetch=1)
    assert await inbox.bodies(1) == [b"kept"]


@only_rabbitmq
async def test_what_rabbitmq_cannot_do_is_refused(rabbit: RabbitProcess, connections: Connections) -> None:
    broker = await connections(rabbit.url)
    name = await queue(broker, max_length=1)
    with pytest.raises(FailedPrecondition, match=name):
        await broker.declare(QueueSpec(name, max_length=2))
    with pytest.raises(InvalidArgument, match="durable"):
        await broker.declare(QueueSpec(f"contract.{uuid.uuid4().hex}", delivery_limit=1))
    with pytest.raises(TooLarge):
        await broker.publish(name, Message(b"\0" * (16 * 1024 * 1024 + 1)))
    await publish(broker, name, b"still works")
