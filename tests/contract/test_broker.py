"""What services/common/broker/port.py promises, held against both adapters on real brokers."""

import asyncio
import sys

import pytest

from services.common.broker.port import Depth, Message, NotFound, QueueFull, QueueSpec
from tests.contract.broker_kit import Connections, Inbox, publish, queue, until_depth


async def test_a_message_arrives_as_it_was_sent(connections: Connections) -> None:
    broker = await connections()
    name = await queue(broker)
    inbox = Inbox()
    await broker.consume(name, inbox, prefetch=10)
    sent = [
        Message(b"", count=1),
        Message(bytes(range(256)), count=7, reply_to="127.0.0.1:8001/gateway/token", ttl=30.0),
        Message(b"\0" * 3_000_000),
        Message(b"a caller's deadline in 11,000 years", ttl=99_999_999 * 3600.0),
    ]
    for message in sent:
        await broker.publish(name, message)
    for message in sent:
        delivery = await inbox.next()
        got = delivery.message
        assert (got.body, got.count, got.reply_to) == (message.body, message.count, message.reply_to)
        assert not delivery.redelivered
        delivery.ack()
    assert await broker.depth(name) == Depth(ready=0, consumers=1)


async def test_each_of_many_concurrent_publishes_arrives_once(connections: Connections) -> None:
    publisher, worker = await connections(), await connections()
    name = await queue(publisher)
    inbox = Inbox()
    await worker.consume(name, inbox, prefetch=32)
    bodies = [b"%d" % number for number in range(500)]

    async def publish_some(part: int) -> None:
        await publish(publisher, name, *bodies[part::50])

    await asyncio.gather(*map(publish_some, range(50)), _expect(inbox, bodies))
    await until_depth(publisher, name, Depth(0, 1))
    assert len(inbox) == 0


async def _expect(inbox: Inbox, bodies: list[bytes]) -> None:
    assert sorted(await inbox.bodies(len(bodies))) == sorted(bodies)


async def test_an_unknown_queue_is_not_found_and_harms_nothing(connections: Connections) -> None:
    broker = await connections()
    name = await queue(broker)
    with pytest.raises(NotFound, match="nowhere"):
        await broker.publish("contract.nowhere", Message(b"x"))
    with pytest.raises(NotFound, match="nowhere"):
        await broker.depth("contract.nowhere")
    with pytest.raises(NotFound, match="nowhere"):
        await broker.consume("contract.nowhere", Inbox(), prefetch=1)
    await publish(broker, name, b"still works")
    assert await broker.depth(name) == Depth(1, 0)


async def test_declaring_twice_keeps_what_waits(connections: Connections) -> None:
    first, second = await connections(), await connections()
    name = await queue(first, max_length=5)
    await publish(first, name, b"kept")
    await second.declare(QueueSpec(name, max_length=5))
    assert (await second.depth(name)).ready == 1


async def test_prefetch_bounds_what_a_consumer_holds(connections: Connections) -> None:
    broker = await connections()
    name = await queue(broker)
    inbox = Inbox()
    await broker.consume(name, inbox, prefetch=2)
    await publish(broker, name, b"1", b"2", b"3", b"4")
    first, _second = await inbox.next(), await inbox.next()
    await until_depth(broker, name, Depth(2, 1))
    assert len(inbox) == 0
    first.ack()
    assert (await inbox.next()).message.body == b"3"
    await until_depth(broker, name, Depth(1, 1))
    assert len(inbox) == 0


async def test_higher_priority_is_served_until_its_prefetch_is_full(connections: Connections) -> None:
    low_side, high_side = await connections(), await connections()
    name = await queue(low_side)
    low, high = Inbox(), Inbox()
    await low_side.consume(name, low, prefetch=10, priority=0)
    await high_side.consume(name, high, prefetch=2, priority=10)
    await publish(low_side, name, b"1", b"2", b"3", b"4")
    held = [await high.next(), await high.next()]
    assert [delivery.message.body for delivery in held] == [b"1", b"2"]
    assert await low.bodies(2) == [b"3", b"4"]
    held[0].ack()
    await until_depth(low_side, name, Depth(0, 2))
    await publish(low_side, name, b"5")
    assert (await high.next()).message.body == b"5"


async def test_equals_share(connections: Connections) -> None:
    broker = await connections()
    name = await queue(broker)
    inboxes = [Inbox(), Inbox()]
    for inbox in inboxes:
        await broker.consume(name, inbox, prefetch=3)
    await publish(broker, name, *[b"x"] * 6)
    for inbox in inboxes:
        await inbox.bodies(3)


async def test_requeued_goes_to_the_head_and_is_marked(connections: Connections) -> None:
    broker = await connections()
    name = await queue(broker)
    await publish(broker, name, b"first", b"second")
    inbox = Inbox()
    await broker.consume(name, inbox, prefetch=1)
    (await inbox.next()).requeue()
    again = await inbox.next()
    assert (again.message.body, again.redelivered) == (b"first", True)
    again.ack()
    assert (await inbox.next()).message.body == b"second"


async def test_rejected_without_a_dead_letter_queue_is_dropped(connections: Connections) -> None:
    broker = await connections()
    name = await queue(broker)
    inbox = Inbox()
    await broker.consume(name, inbox, prefetch=1)
    await publish(broker, name, b"bad", b"good")
    (await inbox.next()).reject()
    assert await inbox.bodies(1) == [b"good"]
    await until_depth(broker, name, Depth(0, 1))


async def test_rejected_goes_to_the_dead_letter_queue(connections: Connections) -> None:
    broker = await connections()
    grave = await queue(broker)
    name = await queue(broker, dead_letter=grave)
    inbox, dead = Inbox(), Inbox()
    await broker.consume(name, inbox, prefetch=1)
    await broker.consume(grave, dead, prefetch=1)
    await broker.publish(name, Message(b"bad", count=3, reply_to="somebody"))
    (await inbox.next()).reject()
    buried = (await dead.next()).message
    assert (buried.body, buried.count, buried.reply_to) == (b"bad", 3, "somebody")


async def test_delivered_too_often_goes_to_the_dead_letter_queue(connections: Connections) -> None:
    broker = await connections()
    grave = await queue(broker)
    name = await queue(broker, durable_messages=True, delivery_limit=2, dead_letter=grave)
    inbox, dead = Inbox(), Inbox()
    await broker.consume(name, inbox, prefetch=1)
    await broker.consume(grave, dead, prefetch=1)
    await publish(broker, name, b"poison")
    for attempt in range(3):
        delivery = await inbox.next()
        assert delivery.redelivered == (attempt > 0)
        delivery.requeue()
    assert await dead.bodies(1) == [b"poison"]
    assert len(inbox) == 0


async def test_expired_messages_are_not_delivered(connections: Connections) -> None:
    broker = await connections()
    name = await queue(broker)
    await broker.publish(name, Message(b"late", ttl=0.05))
    await publish(broker, name, b"patient")
    await until_depth(broker, name, Depth(1, 0))
    inbox = Inbox()
    await broker.consume(name, inbox, prefetch=2)
    assert await inbox.bodies(1) == [b"patient"]
    assert len(inbox) == 0


async def test_expired_messages_go_to_the_dead_letter_queue(connections: Connections) -> None:
    broker = await connections()
    grave = await queue(broker)
    name = await queue(broker, dead_letter=grave)
    await broker.publish(name, Message(b"late", ttl=0.05))
    await until_depth(broker, name, Depth(0, 0))
    await until_depth(broker, grave, Depth(1, 0))


async def test_a_full_queue_rejects_the_publish(connections: Connections) -> None:
    broker = await connections()
    name = await queue(broker, max_length=3)
    await publish(broker, name, b"1", b"2", b"3")
    with pytest.raises(QueueFull, match=name) as caught:
        await publish(broker, name, b"4")
    assert caught.value.retry_after > 0
    assert await broker.depth(name) == Depth(3, 0)
    inbox = Inbox()
    await broker.consume(name, inbox, prefetch=1)
    await inbox.next()  # held: what is held does not count
    await until_depth(broker, name, Depth(2, 1))
    await publish(broker, name, b"5")
    with pytest.raises(QueueFull):
        await publish(broker, name, b"6")


async def test_cancelled_consumers_get_nothing_and_settle_what_they_hold(connections: Connections) -> None:
    broker = await connections()
    name = await queue(broker)
    inbox = Inbox()
    consumer = await broker.consume(name, inbox, prefetch=1)
    await publish(broker, name, b"held", b"waits")
    held = await inbox.next()
    await consumer.cancel()
    await until_depth(broker, name, Depth(1, 0))
    held.ack()
    other = Inbox()
    await broker.consume(name, other, prefetch=5)
    assert await other.bodies(1) == [b"waits"]
    await until_depth(broker, name, Depth(0, 1))
    assert len(inbox) + len(other) == 0


async def test_what_was_said_before_close_holds_and_the_rest_goes_to_others(connections: Connections) -> None:
    leaving, staying = await connections(), await connections()
    name = await queue(staying)
    inbox, other = Inbox(), Inbox()
    await leaving.consume(name, inbox, prefetch=5)
    await publish(staying, name, b"done", b"open")
    (await inbox.next()).ack()
    await inbox.next()
    await leaving.close()
    await staying.consume(name, other, prefetch=5)
    delivery = await other.next()
    assert (delivery.message.body, delivery.redelivered) == (b"open", True)
    delivery.ack()
    await until_depth(staying, name, Depth(0, 1))
    assert len(other) == 0


async def test_a_killed_consumers_messages_go_to_others(connections: Connections) -> None:
    broker = await connections()
    name = await queue(broker)
    await publish(broker, name, b"1", b"2", b"3")
    command = [sys.executable, "-m", "tests.support.holding_consumer", connections.url, name]
    holder = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert holder.stdout is not None
    for _ in range(3):
        assert await asyncio.wait_for(holder.stdout.readline(), 20) == b"held\n"
    inbox = Inbox()
    await broker.consume(name, inbox, prefetch=5)
    assert len(inbox) == 0
    holder.kill()
    await holder.wait()
    deliveries = [await inbox.next() for _ in range(3)]
    assert [delivery.message.body for delivery in deliveries] == [b"1", b"2", b"3"]
    assert all(delivery.redelivered for delivery in deliveries)
