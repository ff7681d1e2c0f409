"""One stream to one gateway: replies go up and are kept until the gateway has confirmed them."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing

from headrace.v1.reply_pb2 import AttachRequest, AttachResponse, PayloadPart, Reply, Verdict, WorkerHello
from services.common.errors import HeadraceError, ModelFailed, NotFound, Unauthenticated, Unimplemented
from services.common.rpc import MAX_MESSAGE_BYTES
from services.common.streams import open_stream
from services.common.tls import Tls
from services.worker.execution import failure
from services.worker.replies.outbox import Outbox

log = logging.getLogger(__name__)

# How long a gateway that does not answer is tried before its requests are given up.
GONE_SECONDS = 10.0
RETRY_SECONDS = 0.2
# A stream that lasted this long was a real one: the gateway is there, and patience begins anew.
ALIVE_SECONDS = 1.0
# A stream that nothing was owed to for this long is closed.
IDLE_SECONDS = 60.0
MAX_REPLY_BYTES = MAX_MESSAGE_BYTES - 1024 * 1024
# What says that the gateway at this address is not the one that asked.
_WRONG = (NotFound, Unauthenticated, Unimplemented)
_METHOD = "/headrace.v1.ReplyService/Attach"


class Link:
    """Owes replies to one gateway.

    Args:
        reply_to: "host:port/gateway_id/token", from the queue's messages.
        hello: who this worker is; the gateway's part is put in.
        on_cancelled: called with the id of a request that nobody waits for any more.
        on_change: called when `connected` or `gone` has changed.

    Attributes:
        connected: the gateway has let us in and the stream lives.
        gone: it cannot be reached any more, or nothing is owed to it: the link is of no use, all debts to it are void.
    """

    def __init__(
        self,
        reply_to: str,
        hello: WorkerHello,
        on_cancelled: Callable[[int], None],
        on_change: Callable[["Link"], None],
        tls: Tls | None = None,
    ) -> None:
        self._tls = tls
        self.reply_to = reply_to
        self._address, hello.gateway_id, hello.token = reply_to.split("/", 2)
        self._hello = hello
        self._on_cancelled = on_cancelled
        self._on_change = on_change
        self.connected = False
        self.gone = False
        self._debts = 0
        self._incurred = 0
        self._outbox = Outbox()
        self._stream = 0
        self._claims: dict[int, asyncio.Future[Verdict | None]] = {}
        self._fetches: dict[int, tuple[asyncio.Future[bytes | None], list[bytes]]] = {}
        self._wake = asyncio.Event()
        self._draining = False
        self._idle = False

    def owe(self) -> None:
        """Takes a debt on: one message from the queue."""
        self._debts += 1
        self._incurred += 1
        self._idle = False

    def paid(self) -> None:
        """A debt is settled."""
        self._debts -= 1
        if not self._debts and self._draining:
            self._wake.set()

    def reply(self, reply: Reply, settle: Callable[[], None], *, hurry: bool = True) -> None:
        """Queues a reply; `settle` is called once the gateway has confirmed it, or is gone.

        Args:
            hurry: the next work depends on it; else the gateway may confirm several together.
        """
        if self.gone:
            settle()
            return
        if len(reply.body) > MAX_REPLY_BYTES:
            message = (
                f"the answer has {len(reply.body)} bytes, more than {MAX_REPLY_BYTES}; ask for fewer rows or outputs"
            )
            reply = failure(reply.id, ModelFailed(message))
        self._outbox.reply(reply, settle, hurry=hurry)
        self._wake.set()

    async def claim(self, request_id: int) -> Verdict | None:
        """Asks whether a request that may have been run before is to be run; None: the stream broke, ask again."""
        if not self.connected:
            return None
        verdict: asyncio.Future[Verdict | None] = asyncio.get_running_loop().create_future()
        self._claims[request_id] = verdict
        self._outbox.claim(request_id)
        self._wake.set()
        return await verdict

    async def fetch(self, request_id: int) -> bytes | None:
        """The payload that stayed at the gateway; None if nobody waits for the request any more."""
        if self.gone:
            return None
        known = self._fetches.get(request_id)
        if known is None:
            known = self._fetches[request_id] = (asyncio.get_running_loop().create_future(), [])
            self._outbox.fetch(request_id)
            self._wake.set()
        return await asyncio.shield(known[0])

    async def run(self) -> None:
        """Keeps the stream up for as long as anything is owed."""
        loop = asyncio.get_running_loop()
        self._check_idle(self._incurred)
        down_since = loop.time()
        while loop.time() < down_since + GONE_SECONDS:
            began = loop.time()
            error, heard = await self._attach(down_since + GONE_SECONDS - began)
            if isinstance(error, _WRONG) or self._draining or (heard and not self._debts):
                break
            if heard or loop.time() - began > ALIVE_SECONDS:
                down_since = loop.time()
            await asyncio.sleep(RETRY_SECONDS)
        self._give_up()

    async def _attach(self, patience: float) -> tuple[HeadraceError | None, bool]:
        """One stream to its end. Returns what ended it and whether the gateway said anything."""
        self._stream += 1
        heard, ended = False, None
        frames = self._frames(self._stream)
        stream = open_stream(self._address, _METHOD, frames, AttachResponse, tls=self._tls, patience=patience)
        try:
            async with aclosing(stream) as incoming:
                async for frame in incoming:
                    if not heard:
                        heard = self.connected = True
                        self._on_change(self)
                    self._take(frame)
        except HeadraceError as error:
            ended = error
        finally:
            self._stream += 1
            self.connected = False
            self._outbox.forget_questions()
            claims, self._claims = self._claims, {}
            for claim in claims.values():
                _answer(claim, None)
        return ended, heard

    async def _frames(self, stream: int) -> AsyncIterator[AttachRequest]:
        """Hello, repetitions, then what gathers while the last frame is written."""
        for _, parts in self._fetches.values():
            parts.clear()
        yield AttachRequest(hello=self._hello, fetches=list(self._fetches))
        for frame in self._outbox.repeated():
            yield frame
        while stream == self._stream:
            if (reply_frame := self._outbox.take()) is not None:
                yield reply_frame
            elif (self._draining or self._idle) and not self._debts:
                return
            else:
                self._wake.clear()
                await self._wake.wait()

    def _take(self, frame: AttachResponse) -> None:
        self._outbox.confirm(frame.received)
        for verdict in frame.verdicts:
            if (claim := self._claims.pop(verdict.id, None)) is not None:
                _answer(claim, verdict)
        for part in frame.payloads:
            self._take_payload(part)
        for request_id in frame.cancelled:
            self._on_cancelled(request_id)
        if frame.draining:
            self._draining = True
            self._wake.set()

    def _take_payload(self, part: PayloadPart) -> None:
        known = self._fetches.get(part.id)
        if known is None:
            return
        payload, parts = known
        parts.append(part.data)
        if part.gone or part.last:
            del self._fetches[part.id]
            payload.set_result(None if part.gone else b"".join(parts))

    def _check_idle(self, incurred_before: int) -> None:
        """Every IDLE_SECONDS: has anything been owed since the last look?"""
        if self.gone:
            return
        if not self._debts and self._incurred == incurred_before and self._stream:
            self._idle = True
            self._wake.set()
        asyncio.get_running_loop().call_later(IDLE_SECONDS, self._check_idle, self._incurred)

    def _give_up(self) -> None:
        """Nobody is left to answer: all debts are void."""
        if self._debts:
            log.warning("gateway %s is gone; its %d messages are dropped", self._address, self._debts)
        self.gone = True
        fetches, self._fetches = self._fetches, {}
        for payload, _ in fetches.values():
            payload.set_result(None)
        self._outbox.void()
        self._on_change(self)


def _answer(claim: asyncio.Future[Verdict | None], verdict: Verdict | None) -> None:
    """Whoever asked may have been cancelled meanwhile."""
    if not claim.done():
        claim.set_result(verdict)
