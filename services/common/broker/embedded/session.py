"""One attached client's side of the core: its operations in, results and deliveries out, coalesced into frames."""

import asyncio
import time
from collections.abc import AsyncIterator

from headrace.v1.broker_pb2 import (
    BrokerServiceAttachRequest,
    BrokerServiceAttachResponse,
    Operation,
    QueuedMessage,
    Result,
)
from services.common.broker.embedded.core import BrokerCore, CoreConsumer
from services.common.broker.port import Message, QueueSpec
from services.common.errors import HeadraceError, InvalidArgument, status_of


class Session:
    """One client: its consumers, and the frame that gathers while the last one is written."""

    def __init__(self, core: BrokerCore) -> None:
        self._core = core
        self._consumers: dict[int, CoreConsumer] = {}
        self._frame = BrokerServiceAttachResponse()
        self._wake = asyncio.Event()
        self._finishing = False

    def take(self, frame: BrokerServiceAttachRequest) -> None:
        """Runs a frame's operations in order."""
        now = time.monotonic()
        for operation in frame.operations:
            result = Result(tag=operation.tag)
            try:
                self._run(operation, result, now)
            except HeadraceError as error:
                result.code, result.message = status_of(error).grpc, str(error)
            if operation.tag:
                self._frame.results.append(result)
        self._wake.set()

    def close(self) -> None:
        """The client is gone: what its consumers held goes to others."""
        now = time.monotonic()
        for consumer in self._consumers.values():
            self._core.cancel(consumer)
        for consumer in self._consumers.values():
            self._core.lose(consumer, now)
        self._consumers.clear()

    async def frames(self) -> AsyncIterator[BrokerServiceAttachResponse]:
        """Frames to write, until `finish`. The first, empty one tells the client that it is in."""
        yield BrokerServiceAttachResponse()
        while True:
            await self._wake.wait()
            self._wake.clear()
            frame, self._frame = self._frame, BrokerServiceAttachResponse()
            if frame.results or frame.deliveries:
                yield frame
            if self._finishing and not self._wake.is_set():
                return

    def finish(self) -> None:
        """The client has no more to say: `frames` ends once the rest is written."""
        self._finishing = True
        self._wake.set()

    def _run(self, operation: Operation, result: Result, now: float) -> None:
        match operation.WhichOneof("verb"):
            case "publish":
                self._publish(operation, now)
            case "ack":
                self._core.ack(self._own(operation.ack), now)
            case "requeue":
                self._core.requeue(self._own(operation.requeue), now)
            case "reject":
                self._core.reject(self._own(operation.reject), now)
            case "declare":
                self._declare(operation)
            case "consume":
                self._consume(operation, now)
            case "cancel_consumer":
                self._cancel(operation.cancel_consumer.consumer)
            case "depth":
                depth = self._core.depth(operation.depth, now)
                result.ready, result.consumers = depth.ready, depth.consumers
                result.unacknowledged = depth.unacknowledged or 0
            case _:
                raise InvalidArgument("an operation without a verb; the client is newer than this broker")

    def _own(self, tag: int) -> int:
        """The tag if it is a delivery of this client's: nobody settles what another holds. Else 0, which none has."""
        holder = self._core.holder(tag)
        return tag if holder is not None and holder.owner is self else 0

    def _cancel(self, number: int) -> None:
        if (consumer := self._consumers.get(number)) is not None:
            self._core.cancel(consumer)
            if not consumer.tags:  # else it is kept, for the case that the client leaves before it settles them
                del self._consumers[number]

    def _publish(self, operation: Operation, now: float) -> None:
        publish = operation.publish
        message = Message(
            body=publish.message.body,
            count=publish.message.count,
            reply_to=publish.message.reply_to,
            ttl=publish.ttl_us / 1e6 if publish.ttl_us else None,
        )
        self._core.publish(publish.queue, message, now)

    def _declare(self, operation: Operation) -> None:
        declare = operation.declare
        self._core.declare(
            QueueSpec(
                name=declare.queue,
                max_length=declare.max_length if declare.HasField("max_length") else None,
                delivery_limit=declare.delivery_limit if declare.HasField("delivery_limit") else None,
                dead_letter=declare.dead_letter or None,
            )
        )

    def _consume(self, operation: Operation, now: float) -> None:
        consume = operation.consume
        if consume.consumer in self._consumers:
            raise InvalidArgument(f"consumer {consume.consumer} consumes already; number each anew on a stream")

        def deliver(tag: int, message: Message, redelivered: bool) -> None:
            self._frame.deliveries.add(
                consumer=consume.consumer,
                delivery=tag,
                message=QueuedMessage(body=message.body, count=message.count, reply_to=message.reply_to),
                redelivered=redelivered,
            )
            self._wake.set()

        consumer = CoreConsumer(consume.queue, max(1, consume.prefetch), consume.priority, deliver, self)
        self._core.consume(consumer, now)
        self._consumers[consume.consumer] = consumer
