"""When a gathered message goes to the broker, on a broker that takes everything and answers nothing."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from headrace.v1.model_pb2 import ModelVersion
from services.common.broker.port import Broker, Message, QueueSpec
from services.gateway.dispatch import publisher as module
from services.gateway.dispatch.pending import Pending
from services.gateway.dispatch.publisher import Publisher
from services.gateway.routes import route_of

PATIENCE = 10.0
ROUTE = route_of(ModelVersion(name="m", version=1))


class Taker:
    """Keeps how many requests each message carried."""

    def __init__(self) -> None:
        self.messages: asyncio.Queue[int] = asyncio.Queue()

    async def declare(self, spec: QueueSpec) -> None:
        """Nothing to make."""

    async def publish(self, queue: str, message: Message) -> None:
        """Takes it at once."""
        self.messages.put_nowait(message.count)

    async def next(self) -> int:
        """The size of the next message."""
        return await asyncio.wait_for(self.messages.get(), PATIENCE)


@asynccontextmanager
async def publishing(unanswered: Callable[[], int], consumers: int = 1) -> AsyncIterator[tuple[Publisher, Taker]]:
    """A publisher that runs."""
    taker, restored = Taker(), asyncio.Event()
    publisher = Publisher(
        cast(Broker, taker),
        ROUTE,
        "gateway",
        inline_bytes=1024,
        restored=restored,
        system="headrace",
        unanswered=unanswered,
    )
    publisher.consumers = consumers
    task = asyncio.create_task(publisher.run())
    try:
        yield publisher, taker
    finally:
        task.cancel()


def request(number: int) -> Pending:
    answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    return Pending(number, ROUTE, b"", 0, 2**62, None, "", answer)


async def turns() -> None:
    """Lets everything that can go on go on."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_request_goes_at_once_where_nothing_is_under_way() -> None:
    async with publishing(lambda: 1) as (publisher, taker):
        publisher.add(request(1))
        assert await taker.next() == 1


async def test_a_message_grows_to_half_of_what_the_consumer_has_in_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GATHER_SECONDS", PATIENCE * 10)
    accepted = 8
    async with publishing(lambda: accepted) as (publisher, taker):
        for number in range(4):
            await turns()
            assert taker.messages.empty()
            accepted += 1
            publisher.add(request(number))
        assert await taker.next() == 4


async def test_answers_let_a_message_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GATHER_SECONDS", PATIENCE * 10)
    accepted = 9
    async with publishing(lambda: accepted) as (publisher, taker):
        publisher.add(request(1))
        await turns()
        assert taker.messages.empty()
        accepted = 3
        publisher.answered()
        assert await taker.next() == 1


async def test_consumers_share_what_is_in_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GATHER_SECONDS", PATIENCE * 10)
    async with publishing(lambda: 9, consumers=4) as (publisher, taker):
        publisher.add(request(1))
        assert await taker.next() == 1


async def test_nobody_waits_longer_than_a_moment_for_company() -> None:
    async with publishing(lambda: 1000) as (publisher, taker):
        publisher.add(request(1))
        assert await taker.next() == 1
