"""The embedded broker's client: implements `Broker` over one BrokerService.Attach stream that is begun again whenever
it breaks."""

import asyncio
import contextlib
import itertools
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass

from headrace.v1.broker_pb2 import (
    BrokerServiceAttachRequest,
    BrokerServiceAttachResponse,
    CancelConsumer,
    Consume,
    Declare,
    Operation,
    Publish,
    QueueDelivery,
    QueuedMessage,
)
from services.common.broker.embedded.host import TOKEN
from services.common.broker.embedded.stream import EmbeddedDelivery, Stream
from services.common.broker.port import Consumer, Delivery, Depth, Message, QueueSpec
from services.common.errors import HeadraceError, NotFound, Unavailable
from services.common.streams import open_stream
from services.common.tls import Tls

log = logging.getLogger(__name__)

RETRY_SECONDS = 0.2
CLOSE_SECONDS = 2.0

# Begins a stream: takes our frames, gives the broker's. Raises HeadraceErrors.
Attach = Callable[[AsyncIterator[BrokerServiceAttachRequest]], AsyncGenerator[BrokerServiceAttachResponse]]
_METHOD = "/headrace.v1.BrokerService/Attach"


def dialled(address: str, token: str, tls: Tls | None) -> Attach:
    """Streams to a broker in another process.

    Args:
        token: what it wants to be shown; empty: nothing.
    """
    metadata = ((TOKEN, token),) if token else ()
    return lambda frames: open_stream(address, _METHOD, frames, BrokerServiceAttachResponse, tls=tls, metadata=metadata)


@dataclass(slots=True, eq=False)
class EmbeddedConsumer:
    """Implements Consumer."""

    operation: Consume
    on_delivery: Callable[[Delivery], None]
    _broker: "EmbeddedBroker"

    async def cancel(self) -> None:
        """Stops deliveries."""
        await self._broker.cancel_consumer(self)


class EmbeddedBroker:
    """One connection for life; a task keeps it up.

    Args:
        address: where the broker is, for messages.
        attach: begins a stream: `dialled`, or the `attach` of a host in this very process.
        on_restored: called after each re-connection.
    """

    def __init__(
        self,
        address: str,
        attach: Attach,
        on_restored: Callable[[], None] | None = None,
    ) -> None:
        self._address = address
        self._begin = attach
        self._why = ""
        self._on_restored = on_restored
        self._stream: Stream | None = None
        self._up = asyncio.Event()
        self._was_up = False
        self._closing = False
        self._consumer_ids = itertools.count(1)
        self._specs: dict[str, QueueSpec] = {}
        self._consumers: dict[int, EmbeddedConsumer] = {}
        self._runner: asyncio.Task[None] | None = None

    @property
    def connected(self) -> bool:
        """The stream lives and its consumers were restored."""
        return self._up.is_set()

    async def start(self, patience: float) -> None:
        """Connects. Raises Unavailable after `patience` seconds without success."""
        self._runner = asyncio.create_task(self._run(), name="embedded broker client")
        try:
            await asyncio.wait_for(self._up.wait(), patience)
        except TimeoutError as error:
            await self.close()
            raise Unavailable(
                f"no embedded broker at {self._address} within {patience:.0f} s ({self._why or 'no answer'}); start it"
                " with `python -m services.broker` or give another with HEADRACE_BROKER"
            ) from error

    async def declare(self, spec: QueueSpec) -> None:
        """Makes the queue, and again after each reconnection."""
        await self._alive().ask(_declare(spec))
        self._specs[spec.name] = spec

    async def publish(self, queue: str, message: Message) -> None:
        """Returns once the broker has the message."""
        ttl_us = 0 if message.ttl is None else max(1, int(message.ttl * 1e6))
        queued = QueuedMessage(body=message.body, count=message.count, reply_to=message.reply_to)
        await self._alive().ask(Operation(publish=Publish(queue=queue, message=queued, ttl_us=ttl_us)))

    async def consume(
        self, queue: str, on_delivery: Callable[[Delivery], None], *, prefetch: int, priority: int = 0
    ) -> Consumer:
        """Subscribes, and again after each reconnection."""
        stream = self._alive()
        number = next(self._consumer_ids)
        operation = Consume(consumer=number, queue=queue, prefetch=prefetch, priority=priority)
        consumer = self._consumers[number] = EmbeddedConsumer(operation, on_delivery, self)
        try:
            await stream.ask(Operation(consume=operation))
        except BaseException:
            self._consumers.pop(number, None)
            raise
        return consumer

    async def cancel_consumer(self, consumer: EmbeddedConsumer) -> None:
        """Forgets a consumer, here and at the broker."""
        self._consumers.pop(consumer.operation.consumer, None)
        if self._stream is not None:
            with contextlib.suppress(Unavailable):  # then the broker forgets it, too
                await self._stream.ask(_cancel(consumer.operation.consumer))

    async def depth(self, queue: str) -> Depth:
        """What waits."""
        result = await self._alive().ask(Operation(depth=queue))
        return Depth(result.ready, result.consumers, result.unacknowledged)

    async def close(self) -> None:
        """Settles what was said, then disconnects; the broker hands what was not settled to others."""
        self._closing = True
        if self._runner is not None:
            if self._stream is not None:
                self._stream.finish()
                await asyncio.wait({self._runner}, timeout=CLOSE_SECONDS)
            self._runner.cancel()
            await asyncio.wait({self._runner})

    def _alive(self) -> Stream:
        if self._stream is None or not self._up.is_set():
            raise Unavailable(f"the broker at {self._address} is away; it is retried all the time")
        return self._stream

    async def _run(self) -> None:
        """Keeps a stream up until we are closed."""
        while not self._closing:
            try:
                await self._attach()
            except HeadraceError as error:
                self._why = str(error)
                if self._up.is_set():
                    log.warning("lost the embedded broker at %s: %s", self._address, error)
            finally:
                self._up.clear()
                if self._stream is not None:
                    self._stream.broke()
            if not self._closing:
                await asyncio.sleep(RETRY_SECONDS)

    async def _attach(self) -> None:
        """One stream until it breaks: re-declare and re-consume, then serve."""
        self._stream = mine = Stream(self._address)
        restoring: asyncio.Task[None] | None = None
        try:
            async with aclosing(self._begin(mine.frames())) as frames:
                async for frame in frames:
                    if restoring is None:
                        restoring = asyncio.create_task(self._restore(mine), name="restoring consumers")
                    for result in frame.results:
                        mine.answered(result)
                    for delivery in frame.deliveries:
                        self._deliver(mine, delivery)
        finally:
            if restoring is not None:
                restoring.cancel()
                await asyncio.wait({restoring})

    async def _restore(self, stream: Stream) -> None:
        """Queues first, then consumers; one whose queue others have yet to declare again is retried."""
        with contextlib.suppress(Unavailable):  # the stream broke: the next one restores
            for spec in self._specs.values():
                await stream.ask(_declare(spec))
            missing = await self._subscribe(stream, list(self._consumers))
            restored, self._was_up = self._was_up, True
            self._up.set()
            if restored and self._on_restored is not None:
                self._on_restored()
            while missing:
                await asyncio.sleep(RETRY_SECONDS)
                missing = await self._subscribe(stream, missing)

    async def _subscribe(self, stream: Stream, numbers: list[int]) -> list[int]:
        """Returns those whose queue is not there."""
        missing = []
        for number in numbers:
            if (consumer := self._consumers.get(number)) is not None:
                try:
                    await stream.ask(Operation(consume=consumer.operation))
                except NotFound:
                    missing.append(number)
        return missing

    def _deliver(self, stream: Stream, delivery: QueueDelivery) -> None:
        queued = delivery.message
        message = Message(queued.body, queued.count, queued.reply_to)
        mine = EmbeddedDelivery(message, delivery.redelivered, delivery.delivery, stream)
        consumer = self._consumers.get(delivery.consumer)
        if consumer is None:  # cancelled, or given up, while the delivery was under way
            stream.send(_cancel(delivery.consumer))
            mine.requeue()
        else:
            consumer.on_delivery(mine)


def _cancel(consumer: int) -> Operation:
    return Operation(cancel_consumer=CancelConsumer(consumer=consumer))


def _declare(spec: QueueSpec) -> Operation:
    declare = Declare(queue=spec.name, dead_letter=spec.dead_letter or "")
    if spec.max_length is not None:
        declare.max_length = spec.max_length
    if spec.delivery_limit is not None:
        declare.delivery_limit = spec.delivery_limit
    return Operation(declare=declare)
