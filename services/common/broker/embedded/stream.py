"""One attachment to the embedded broker, and the deliveries that came by it."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass

from headrace.v1.broker_pb2 import BrokerServiceAttachRequest, Operation, Result
from services.common.broker.port import Message
from services.common.errors import Unavailable, error_of


class Stream:
    """The frame that gathers while the last one is written, and who waits for answers."""

    def __init__(self, address: str) -> None:
        self.alive = True
        self._address = address
        self._frame = BrokerServiceAttachRequest()
        self._wake = asyncio.Event()
        self._finishing = False
        self._tags = itertools.count(1)
        self._answers: dict[int, asyncio.Future[Result]] = {}

    def send(self, operation: Operation) -> None:
        """Puts an operation into the next frame; nothing once the stream broke."""
        if self.alive and not self._finishing:
            self._frame.operations.append(operation)
            self._wake.set()

    async def ask(self, operation: Operation) -> Result:
        """Sends an operation and waits for its result. Raises what the broker answered, Unavailable if it did not."""
        if not self.alive or self._finishing:
            raise Unavailable(f"the connection to the broker at {self._address} broke")
        operation.tag = next(self._tags)
        answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._answers[operation.tag] = answer
        self.send(operation)
        try:
            result = await answer
        finally:
            self._answers.pop(operation.tag, None)
        if result.code:
            raise error_of(result.code, result.message)
        return result

    def answered(self, result: Result) -> None:
        """Wakes whoever asked."""
        answer = self._answers.get(result.tag)
        if answer is not None and not answer.done():
            answer.set_result(result)

    async def frames(self) -> AsyncIterator[BrokerServiceAttachRequest]:
        """What to write: whatever gathers while a frame is written goes into the next."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            frame, self._frame = self._frame, BrokerServiceAttachRequest()
            if frame.operations:
                yield frame
            if self._finishing and not self._wake.is_set():
                return

    def finish(self) -> None:
        """Ends our side once all is written; the broker then ends its own."""
        self._finishing = True
        self._wake.set()

    def broke(self) -> None:
        """Nobody will answer what was asked."""
        self.alive = False
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(Unavailable(f"the connection to the broker at {self._address} broke"))


@dataclass(slots=True, eq=False)
class EmbeddedDelivery:
    """Implements Delivery."""

    message: Message
    redelivered: bool
    _tag: int
    _stream: Stream

    def ack(self) -> None:
        """Done."""
        self._stream.send(Operation(ack=self._tag))

    def requeue(self) -> None:
        """Give it to somebody else."""
        self._stream.send(Operation(requeue=self._tag))

    def reject(self) -> None:
        """Never deliver it again."""
        self._stream.send(Operation(reject=self._tag))
