"""One subscription, and what was delivered to it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from aiormq import spec
from aiormq.abc import AbstractChannel, AbstractConnection, ArgumentsType, ChannelFrame, DeliveredMessage

from services.common.broker.port import Delivery, Message
from services.common.broker.rabbitmq.faults import translated
from services.common.broker.rabbitmq.topology import CLOSE_SECONDS
from services.common.errors import HeadraceError, Unavailable

log = logging.getLogger(__name__)

RETRY_SECONDS = 0.3
# A quorum queue without a leader, as just after a restart, leaves a subscription unanswered: ask again.
SUBSCRIBE_SECONDS = 5.0
# aiormq's write queue takes ten entries; acknowledgements that find it full wait this long.
FULL_SECONDS = 0.001

Settlement = spec.Basic.Ack | spec.Basic.Reject


class Settler:
    """Acknowledgements of one channel: all of one turn of the event loop leave in one write, in order."""

    def __init__(self, channel: AbstractChannel, on_settled: Callable[[], None]) -> None:
        self.channel = channel
        self.unsettled = 0
        self._on_settled = on_settled
        self._frames: list[Settlement] = []

    def finish(self) -> None:
        """Nothing more will come: says so at once if nothing is owed."""
        if self.unsettled == 0:
            self._on_settled()

    def send(self, frame: Settlement) -> None:
        """Queues a frame; nothing happens once the channel is closed, for the broker redelivers then."""
        if self.channel.is_closed:
            return
        self.unsettled -= 1
        self.finish()
        if not self._frames:
            asyncio.get_running_loop().call_soon(self._flush)
        self._frames.append(frame)

    def _flush(self) -> None:
        if not self._frames or self.channel.is_closed:
            return
        try:
            self.channel.connection.write_queue.put_nowait(self._take())
        except asyncio.QueueFull:
            asyncio.get_running_loop().call_later(FULL_SECONDS, self._flush)
            return
        self._frames.clear()

    async def close(self) -> None:
        """Sends what is left and closes the channel; the broker's answer says that it has read it all."""
        with suppress(Exception):
            async with asyncio.timeout(CLOSE_SECONDS):
                if self._frames and not self.channel.is_closed:
                    last = self._take()
                    self._frames.clear()
                    await self.channel.connection.write_queue.put(last)
                await self.channel.close(None)

    def _take(self) -> ChannelFrame:
        return ChannelFrame.marshall(channel_number=self.channel.number, frames=self._frames)


@dataclass(slots=True, eq=False)
class RabbitDelivery:
    """Implements Delivery."""

    message: Message
    redelivered: bool
    _tag: int
    _settler: Settler

    def ack(self) -> None:
        """Done."""
        self._settler.send(spec.Basic.Ack(delivery_tag=self._tag))

    def requeue(self) -> None:
        """Give it to somebody else."""
        self._settler.send(spec.Basic.Reject(delivery_tag=self._tag, requeue=True))

    def reject(self) -> None:
        """Never deliver it again."""
        self._settler.send(spec.Basic.Reject(delivery_tag=self._tag, requeue=False))


@dataclass(slots=True, eq=False)
class RabbitConsumer:
    """Implements Consumer.

    Attributes:
        prepare: called before each subscription, to make sure of the queue.
        forget: called when the consumer is to be restored no more.
        attempt: the first subscription on the current connection: done, or what went wrong.
    """

    queue: str
    on_delivery: Callable[[Delivery], None]
    prefetch: int
    priority: int
    prepare: Callable[[AbstractConnection], Awaitable[None]]
    forget: Callable[["RabbitConsumer"], None]
    attempt: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    _cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    _subscribed: tuple[Settler, str] | None = None

    def abandon(self) -> None:
        """Subscribes no more."""
        self._cancelled.set()
        self.forget(self)
        if self._subscribed is not None:
            self._subscribed[0].finish()

    async def cancel(self) -> None:
        """Stops deliveries; the channel lives until what was handed out is settled."""
        self._cancelled.set()
        self.forget(self)
        if self._subscribed is not None:
            settler, tag = self._subscribed
            with suppress(Unavailable), translated(f"cancel of a consumer of '{self.queue}'"):
                await settler.channel.basic_cancel(tag)
            settler.finish()

    async def run(self, connection: AbstractConnection) -> None:
        """Stays subscribed for as long as the connection lives."""
        while not connection.is_closed and not self._cancelled.is_set():
            try:
                await self.prepare(connection)
                await self._subscription(connection)
            except HeadraceError as error:
                # What is away for now is tried again, and whoever asked for it waits.
                if not isinstance(error, Unavailable) and not self.attempt.done():
                    self.attempt.set_exception(error)
                    self.attempt.exception()  # it may be nobody's concern
                log.warning("consumer of '%s' is not subscribed: %s", self.queue, error)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._cancelled.wait(), RETRY_SECONDS)

    async def _subscription(self, connection: AbstractConnection) -> None:
        """One subscription, from Basic.Consume until the channel, the broker or we end it."""
        with translated(f"consume of '{self.queue}'"):
            channel = await connection.channel(publisher_confirms=False)
        ended = asyncio.Event()
        channel.closing.add_done_callback(lambda _: ended.set())
        channel.on_consumer_cancel_callbacks.add(lambda _: ended.set())
        settler = Settler(channel, lambda: ended.set() if self._cancelled.is_set() else None)
        try:
            with translated(f"consume of '{self.queue}'"):
                async with asyncio.timeout(SUBSCRIBE_SECONDS):
                    await channel.basic_qos(prefetch_count=self.prefetch)
                    arguments: ArgumentsType = {"x-priority": self.priority}
                    begun = await channel.basic_consume(self.queue, self._receiver(settler), arguments=arguments)
            self._subscribed = (settler, begun.consumer_tag or "")
            if not self.attempt.done():
                self.attempt.set_result(None)
            await ended.wait()
        finally:
            self._subscribed = None
            await settler.close()

    def _receiver(self, settler: Settler) -> Callable[[DeliveredMessage], Coroutine[Any, Any, None]]:
        async def receive(delivered: DeliveredMessage) -> None:
            frame, properties = delivered.delivery, delivered.header.properties
            assert isinstance(frame, spec.Basic.Deliver)
            settler.unsettled += 1
            count = (properties.headers or {}).get("count", 1)
            message = Message(delivered.body, int(str(count)), properties.reply_to or "")
            delivery = RabbitDelivery(message, bool(frame.redelivered), frame.delivery_tag or 0, settler)
            if self._cancelled.is_set():  # it was under way to us
                delivery.requeue()
            else:
                self.on_delivery(delivery)

        return receive
