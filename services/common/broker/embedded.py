"""The embedded broker's client: implements `Broker` over one BrokerService.Attach stream that is begun again whenever
it breaks."""

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc

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
    Result,
)
from headrace.v1.broker_pb2_grpc import BrokerServiceStub
from services.common.broker.port import Consumer, Delivery, Depth, Message, QueueSpec
from services.common.errors import Unavailable, error_of
from services.common.rpc import channel

if TYPE_CHECKING:
    from headrace.v1.broker_pb2_grpc import BrokerServiceAsyncStub

log = logging.getLogger(__name__)

RETRY_SECONDS = 0.2


@dataclass(slots=True, eq=False)
class EmbeddedDelivery:
    """Implements Delivery. `session` is the stream that brought it: on a later one its verbs do nothing."""

    message: Message
    redelivered: bool
    _tag: int
    _session: int
    _broker: "EmbeddedBroker"

    def ack(self) -> None:
        """Done."""
        self._broker.settle(self._session, Operation(ack=self._tag))

    def requeue(self) -> None:
        """Give it to somebody else."""
        self._broker.settle(self._session, Operation(requeue=self._tag))

    def reject(self) -> None:
        """Never deliver it again."""
        self._broker.settle(self._session, Operation(reject=self._tag))


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
    """One connection for life; `run` keeps it up."""

    def __init__(self, address: str, on_restored: Callable[[], None] | None) -> None:
        self._address = address
        self._on_restored = on_restored
        self._session = 0
        self._up = asyncio.Event()
        self._tags = itertools.count(1)
        self._consumer_ids = itertools.count(1)
        self._answers: dict[int, asyncio.Future[Result]] = {}
        self._specs: dict[str, QueueSpec] = {}
        self._consumers: dict[int, EmbeddedConsumer] = {}
        self._frame = BrokerServiceAttachRequest()
        self._wake = asyncio.Event()
        self._runner: asyncio.Task[None] | None = None

    @property
    def connected(self) -> bool:
        """The stream lives."""
        return self._up.is_set()

    async def start(self, patience: float) -> None:
        """Connects. Raises Unavailable after `patience` seconds without success."""
        self._runner = asyncio.create_task(self._run(), name="embedded broker client")
        try:
            await asyncio.wait_for(self._up.wait(), patience)
        except TimeoutError as error:
            await self.close()
            raise Unavailable(
                f"no embedded broker at {self._address} within {patience:.0f} s; start it with `python -m"
                " services.broker` or give another with HEADRACE_BROKER"
            ) from error

    async def declare(self, spec: QueueSpec) -> None:
        """Makes the queue, and again after each reconnection."""
        self._specs[spec.name] = spec
        await self._ask(_declare(spec))

    async def publish(self, queue: str, message: Message) -> None:
        """Returns once the broker has the message."""
        ttl_us = 0 if message.ttl is None else max(1, int(message.ttl * 1e6))
        queued = QueuedMessage(body=message.body, count=message.count, reply_to=message.reply_to)
        await self._ask(Operation(publish=Publish(queue=queue, message=queued, ttl_us=ttl_us)))

    async def consume(
        self, queue: str, on_delivery: Callable[[Delivery], None], *, prefetch: int, priority: int = 0
    ) -> Consumer:
        """Subscribes, and again after each reconnection."""
        number = next(self._consumer_ids)
        operation = Consume(consumer=number, queue=queue, prefetch=prefetch, priority=priority)
        consumer = EmbeddedConsumer(operation, on_delivery, self)
        self._consumers[number] = consumer
        try:
            await self._ask(Operation(consume=operation))
        except BaseException:
            self._consumers.pop(number, None)
            raise
        return consumer

    async def cancel_consumer(self, consumer: EmbeddedConsumer) -> None:
        """Forgets a consumer, here and at the broker."""
        self._consumers.pop(consumer.operation.consumer, None)
        if self.connected:
            await self._ask(Operation(cancel_consumer=CancelConsumer(consumer=consumer.operation.consumer)))

    async def depth(self, queue: str) -> Depth:
        """What waits."""
        result = await self._ask(Operation(depth=queue))
        return Depth(result.ready, result.consumers)

    async def close(self) -> None:
        """Disconnects; the broker hands what was unacknowledged to others."""
        if self._runner is not None:
            self._runner.cancel()
            await asyncio.wait({self._runner})

    def settle(self, session: int, operation: Operation) -> None:
        """Sends what a delivery's holder decided, if the stream that brought it still lives."""
        if session == self._session and self.connected:
            self._send(operation)

    def _send(self, operation: Operation) -> None:
        self._frame.operations.append(operation)
        self._wake.set()

    async def _ask(self, operation: Operation) -> Result:
        """Sends an operation and waits for its result."""
        if not self.connected:
            raise Unavailable(f"the broker at {self._address} is away; it is retried all the time")
        operation.tag = next(self._tags)
        answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._answers[operation.tag] = answer
        self._send(operation)
        try:
            result = await answer
        finally:
            self._answers.pop(operation.tag, None)
        if result.code:
            raise error_of(result.code, result.message)
        return result

    async def _run(self) -> None:
        """Keeps a stream up for ever."""
        async with channel(self._address) as connection:
            while True:
                try:
                    stub: BrokerServiceAsyncStub = BrokerServiceStub(connection)
                    await self._attach(stub)
                except grpc.RpcError as error:
                    if self.connected:
                        log.warning("lost the embedded broker at %s: %s", self._address, error)
                finally:
                    self._down()
                await asyncio.sleep(RETRY_SECONDS)

    async def _attach(self, stub: "BrokerServiceAsyncStub") -> None:
        """One stream: re-declare, re-consume, then serve until it breaks."""
        self._frame = BrokerServiceAttachRequest()
        for spec in self._specs.values():
            self._frame.operations.append(_declare(spec))
        for consumer in self._consumers.values():
            self._frame.operations.append(Operation(consume=consumer.operation))
        self._wake.set()
        restored = self._session > 0
        self._session += 1
        async for frame in stub.Attach(self._frames()):
            if not self._up.is_set():
                self._up.set()
                if restored and self._on_restored is not None:
                    self._on_restored()
            self._take(frame)

    async def _frames(self) -> AsyncIterator[BrokerServiceAttachRequest]:
        """Whatever gathers while a frame is written goes into the next."""
        session = self._session
        while session == self._session:
            await self._wake.wait()
            if session != self._session:  # a later stream's frame is not for this one
                return
            self._wake.clear()
            frame, self._frame = self._frame, BrokerServiceAttachRequest()
            yield frame

    def _take(self, frame: BrokerServiceAttachResponse) -> None:
        for result in frame.results:
            answer = self._answers.get(result.tag)
            if answer is not None and not answer.done():
                answer.set_result(result)
        for delivery in frame.deliveries:
            self._deliver(delivery)

    def _deliver(self, delivery: QueueDelivery) -> None:
        queued = delivery.message
        message = Message(queued.body, queued.count, queued.reply_to)
        mine = EmbeddedDelivery(message, delivery.redelivered, delivery.delivery, self._session, self)
        consumer = self._consumers.get(delivery.consumer)
        if consumer is None:  # cancelled while the delivery was under way
            mine.requeue()
        else:
            consumer.on_delivery(mine)

    def _down(self) -> None:
        """The stream broke: nobody will answer what was asked on it."""
        self._up.clear()
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(Unavailable(f"the connection to the broker at {self._address} broke"))


def _declare(spec: QueueSpec) -> Operation:
    declare = Declare(queue=spec.name, dead_letter=spec.dead_letter or "")
    if spec.max_length is not None:
        declare.max_length = spec.max_length
    if spec.delivery_limit is not None:
        declare.delivery_limit = spec.delivery_limit
    return Operation(declare=declare)
