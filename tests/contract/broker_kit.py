"""What the broker contract's tests share: connections that close themselves, collected deliveries, bounded waits."""

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable

from services.common.broker.connect import connect
from services.common.broker.port import Broker, Delivery, Depth, Message, QueueSpec

WAIT_SECONDS = 20.0


class Inbox:
    """Collects deliveries."""

    def __init__(self) -> None:
        self._deliveries: asyncio.Queue[Delivery] = asyncio.Queue()

    def __call__(self, delivery: Delivery) -> None:
        self._deliveries.put_nowait(delivery)

    def __len__(self) -> int:
        return self._deliveries.qsize()

    async def next(self) -> Delivery:
        """The next one, within a bound."""
        return await asyncio.wait_for(self._deliveries.get(), WAIT_SECONDS)

    async def bodies(self, count: int) -> list[bytes]:
        """Takes and acknowledges so many; their bodies in order."""
        found = []
        for _ in range(count):
            delivery = await self.next()
            delivery.ack()
            found.append(delivery.message.body)
        return found


class Connections:
    """Makes connections to one broker and closes them at the test's end."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._open: list[Broker] = []

    async def __call__(self, url: str = "", on_restored: Callable[[], None] | None = None) -> Broker:
        """One more connection."""
        broker = await connect(url or self.url, name="contract", on_restored=on_restored)
        self._open.append(broker)
        return broker

    async def close(self) -> None:
        """Closes all."""
        for broker in self._open:
            await broker.close()


async def queue(broker: Broker, **limits: int | str | bool) -> str:
    """Declares a queue of an unused name."""
    name = f"contract.{uuid.uuid4().hex}"
    await broker.declare(QueueSpec(name, **limits))  # type: ignore[arg-type]
    return name


async def publish(broker: Broker, name: str, *bodies: bytes) -> None:
    """Publishes one after the other."""
    for body in bodies:
        await broker.publish(name, Message(body))


async def until(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    """Returns once the condition holds; fails the test after a bound."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not await condition():
        assert time.monotonic() < deadline, f"waited {WAIT_SECONDS:.0f} s for {what}"
        await asyncio.sleep(0.01)


async def until_depth(broker: Broker, name: str, expected: Depth) -> None:
    """Returns once the queue is as expected."""

    async def reached() -> bool:
        return await broker.depth(name) == expected

    await until(reached, f"{name} to be {expected}")


async def until_consumers(broker: Broker, name: str, expected: int) -> None:
    """Returns once so many consumers are attached."""

    async def reached() -> bool:
        return (await broker.depth(name)).consumers == expected

    await until(reached, f"{name} to have {expected} consumers")
