"""One stream to one gateway: replies go up and are kept until the gateway has confirmed them."""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable

import grpc
from grpc import aio

from headrace.v1.reply_pb2 import AttachRequest, AttachResponse, PayloadPart, Reply, WorkerHello
from headrace.v1.reply_pb2_grpc import ReplyServiceStub
from services.common.rpc import channel
from services.worker.replies.ticket import Ticket

log = logging.getLogger(__name__)

# How long a gateway that does not answer is tried before its requests are given up.
GONE_SECONDS = 10.0
RETRY_SECONDS = 0.2
# What says that the gateway at this address is not the one that asked.
_WRONG = {grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNAUTHENTICATED}


class Link:
    """Owes replies to one gateway.

    Args:
        reply_to: "host:port/gateway_id/token", from the queue's messages.
        on_cancelled: called with the id of a request that nobody waits for any more.
        on_gone: called once when the gateway is gone or nothing is owed to it; the link is of no use afterwards.
    """

    def __init__(
        self,
        reply_to: str,
        worker_id: str,
        on_cancelled: Callable[[int], None],
        on_gone: Callable[["Link"], None],
    ) -> None:
        self.reply_to = reply_to
        self._address, gateway_id, token = reply_to.split("/", 2)
        self._hello = WorkerHello(worker_id=worker_id, gateway_id=gateway_id, token=token)
        self._on_cancelled = on_cancelled
        self._on_gone = on_gone
        self._tickets: set[Ticket] = set()
        self._frame, self._frame_tickets = AttachRequest(), list[Ticket]()
        self._unconfirmed: deque[tuple[AttachRequest, list[Ticket]]] = deque()
        self._sequence = 0
        self._stream = 0
        self._claims: dict[int, asyncio.Future[bool]] = {}
        self._fetches: dict[int, tuple[asyncio.Future[bytes | None], list[bytes]]] = {}
        self._wake = asyncio.Event()
        self._draining = False

    def owe(self, ticket: Ticket) -> None:
        """Takes a debt on."""
        self._tickets.add(ticket)

    def owed(self) -> bool:
        """Something has not been settled."""
        self._tickets = {ticket for ticket in self._tickets if not ticket.closed}
        return bool(self._tickets)

    def reply(self, reply: Reply, ticket: Ticket) -> None:
        """Queues a reply; its ticket is settled when the gateway confirms the frame."""
        self._frame.replies.append(reply)
        self._frame_tickets.append(ticket)
        self._wake.set()

    async def claim(self, request_id: int) -> bool:
        """Asks whether a request that may have been run before is to be run. False once the gateway is gone."""
        verdict = self._claims.get(request_id)
        if verdict is None:
            verdict = self._claims[request_id] = asyncio.get_running_loop().create_future()
            self._frame.claims.add(id=request_id)
            self._wake.set()
        return await asyncio.shield(verdict)

    async def fetch(self, request_id: int) -> bytes | None:
        """The payload that stayed at the gateway; None if nobody waits for the request any more."""
        known = self._fetches.get(request_id)
        if known is None:
            known = self._fetches[request_id] = (asyncio.get_running_loop().create_future(), [])
            self._frame.fetches.append(request_id)
            self._wake.set()
        return await asyncio.shield(known[0])

    async def run(self) -> None:
        """Keeps the stream up for as long as anything is owed."""
        loop = asyncio.get_running_loop()
        last_seen = loop.time()
        async with channel(self._address) as connection:
            while not self._draining:
                self._stream += 1
                try:
                    async for frame in self._attach(connection):
                        last_seen = loop.time()
                        self._take(frame)
                except grpc.RpcError as error:
                    if getattr(error, "code", lambda: None)() in _WRONG:
                        break
                if not self.owed() or loop.time() - last_seen > GONE_SECONDS:
                    break
                await asyncio.sleep(RETRY_SECONDS)
        self._give_up()

    async def _attach(self, connection: aio.Channel) -> AsyncIterator[AttachResponse]:
        """One stream; begins by repeating whatever the last one may have lost."""
        stub = ReplyServiceStub(connection)
        async for frame in stub.Attach(self._frames()):
            yield frame

    async def _frames(self) -> AsyncIterator[AttachRequest]:
        """Hello, repetitions, then what gathers while the last frame is written."""
        stream = self._stream
        hello = AttachRequest(hello=self._hello, fetches=list(self._fetches))
        for request_id, (_, parts) in self._fetches.items():
            del request_id
            parts.clear()
        for request_id in self._claims:
            hello.claims.add(id=request_id)
        self._frame.ClearField("claims")
        self._frame.ClearField("fetches")
        yield hello
        for frame, _ in list(self._unconfirmed):
            yield frame
        while stream == self._stream:
            if self._frame.ByteSize():
                yield self._next_frame()
            else:
                self._wake.clear()
                await self._wake.wait()

    def _next_frame(self) -> AttachRequest:
        frame, tickets = self._frame, self._frame_tickets
        self._frame, self._frame_tickets = AttachRequest(), []
        if tickets:
            self._sequence += 1
            frame.sequence = self._sequence
            self._unconfirmed.append((frame, tickets))
        return frame

    def _take(self, frame: AttachResponse) -> None:
        while self._unconfirmed and self._unconfirmed[0][0].sequence <= frame.received:
            for ticket in self._unconfirmed.popleft()[1]:
                ticket.settle()
        for verdict in frame.verdicts:
            if (claim := self._claims.pop(verdict.id, None)) is not None:
                claim.set_result(verdict.run)
        for part in frame.payloads:
            self._take_payload(part)
        for request_id in frame.cancelled:
            self._on_cancelled(request_id)
        self._draining = self._draining or (frame.draining and not self.owed())

    def _take_payload(self, part: PayloadPart) -> None:
        known = self._fetches.get(part.id)
        if known is None:
            return
        payload, parts = known
        parts.append(part.data)
        if part.gone or part.last:
            del self._fetches[part.id]
            payload.set_result(None if part.gone else b"".join(parts))

    def _give_up(self) -> None:
        """Nobody is left to answer: all debts are void."""
        if self.owed():
            log.warning("gateway %s is gone; its requests are dropped", self._address)
        for claim in self._claims.values():
            claim.set_result(False)
        for payload, _ in self._fetches.values():
            payload.set_result(None)
        self._claims.clear()
        self._fetches.clear()
        for _, tickets in self._unconfirmed:
            for ticket in tickets:
                ticket.settle()
        for ticket in self._frame_tickets:
            ticket.settle()
        self._unconfirmed.clear()
        self._frame_tickets = []
        self._on_gone(self)
