"""The embedded broker itself, wherever it lives: in a process of its own, or in a gateway."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

from headrace.v1.broker_pb2 import BrokerServiceAttachRequest, BrokerServiceAttachResponse
from services.common.broker.embedded.core import BrokerCore
from services.common.broker.embedded.session import Session

# The metadata with which a client shows that it may attach.
TOKEN = "headrace-broker-token"


class BrokerHost:
    """All queues, and a session for each client that attaches. Messages live in memory, and end with it."""

    def __init__(self) -> None:
        self._core = BrokerCore()

    def session(self) -> Session:
        """For a client that `serve` will serve; close it when the client is gone."""
        return Session(self._core)

    def attach(
        self, requests: AsyncIterator[BrokerServiceAttachRequest]
    ) -> AsyncGenerator[BrokerServiceAttachResponse]:
        """One client's frames, until it has no more to say. Closing it gives what the client held to others."""
        return serve(self.session(), requests)


async def serve(
    session: Session, requests: AsyncIterator[BrokerServiceAttachRequest]
) -> AsyncGenerator[BrokerServiceAttachResponse]:
    """Runs a session over a stream, and closes it. Raises what reading the client's frames raises."""

    async def read() -> None:
        async for frame in requests:
            session.take(frame)

    reader = asyncio.create_task(read(), name="broker session")
    reader.add_done_callback(lambda _: session.finish())
    try:
        async for frame in session.frames():
            yield frame
        if not reader.cancelled() and (error := reader.exception()) is not None:
            raise error  # the client sent what cannot be read
    finally:
        session.close()
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)
