"""BrokerService over the core: one session for each attached client, frames coalesced both ways."""

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
from headrace.v1.broker_pb2_grpc import BrokerServiceServicer
from services.broker.core import BrokerCore, CoreConsumer
from services.common.broker.port import Message, QueueSpec
from services.common.errors import HeadraceError, InvalidArgument, status_of


class Session:
    """One client: its consumers, and the frame that gathers while the last one is written."""

    def __init__(self, core: BrokerCore) -> None:
        self._core = core
        self._consumers: dict[int, CoreConsumer] = {}
        self._frame = BrokerServiceAttachResponse()
        self._wake = asyncio.Event()

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
        """Frames to write, for ever. The first, empty one tells the client that it is in."""
        yield BrokerServiceAttachResponse()
        while True:
            await self._wake.wait()
            self._wake.clear()
            frame, self._frame = self._frame, BrokerServiceAttachResponse()
            yield frame

    def _run(self, operation: Operation, result: Result, now: float) -> None:
        match operation.WhichOneof("verb"):
            case "publish":
                self._publish(operation, now)
            case "ack":
                self._core.ack(operation.ack, now)
            case "requeue":
                self._core.requeue(operation.requeue, now)
            case "reject":
                self._core.reject(operation.reject, now)
            case "declare":
                self._declare(operation)
            case "consume":
                self._consume(operation, now)
            case "cancel_consumer":
                if (consumer := self._consumers.get(operation.cancel_consumer.consumer)) is not None:
                    self._core.cancel(consumer)
            case "depth":
                depth = self._core.depth(operation.depth, now)
                result.ready, result.consumers = depth.ready, depth.consumers
            case _:
                raise InvalidArgument("an operation without a verb; the client is newer than this broker")

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

        def deliver(tag: int, message: Message, redelivered: bool) -> None:
            self._frame.deliveries.add(
                consumer=consume.consumer,
                delivery=tag,
                message=QueuedMessage(body=message.body, count=message.count, reply_to=message.reply_to),
                redelivered=redelivered,
            )
            self._wake.set()

        consumer = CoreConsumer(consume.queue, max(1, consume.prefetch), consume.priority, deliver)
        self._core.consume(consumer, now)
        self._consumers[consume.consumer] = consumer


class BrokerServer(BrokerServiceServicer):
    """Implements BrokerService.Attach."""

    def __init__(self) -> None:
        self._core = BrokerCore()

    async def Attach(  # the contract's name
        self, request_iterator: AsyncIterator[BrokerServiceAttachRequest], context: object
    ) -> AsyncIterator[BrokerServiceAttachResponse]:
        """One client's stream."""
        session = Session(self._core)

        async def read() -> None:
            async for frame in request_iterator:
                session.take(frame)

        reader = asyncio.create_task(read(), name="broker session")
        frames = session.frames()
        try:
            while not reader.done():
                frame = asyncio.ensure_future(anext(frames))
                try:
                    await asyncio.wait({frame, reader}, return_when=asyncio.FIRST_COMPLETED)
                    if not frame.done():
                        break
                    yield frame.result()
                finally:
                    frame.cancel()
        finally:
            reader.cancel()
            session.close()
