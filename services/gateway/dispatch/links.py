"""The gateway's side of the reply channel: one link for each attached worker stream."""

import asyncio
from collections.abc import AsyncIterator, Callable
from hmac import compare_digest

from google.protobuf.message import DecodeError

from headrace.v1.reply_pb2 import AttachRequest, AttachResponse, PayloadPart, Reply, Verdict, WorkerHello
from services.common.errors import InvalidArgument, NotFound, Unauthenticated, error_of
from services.gateway.calls import Call
from services.gateway.dispatch.pending import PendingTable, fail

PAYLOAD_PART_BYTES = 1024 * 1024


class Link:
    """What is to be sent down to one worker; whatever gathers while a frame is written goes into the next."""

    def __init__(self, worker: str) -> None:
        self.worker = worker
        self._frame = AttachResponse()
        self._fetches: list[int] = []
        self._wake = asyncio.Event()

    def received(self, sequence: int) -> None:
        """Confirms every reply frame up to `sequence`."""
        self._frame.received = sequence
        self._wake.set()

    def verdict(self, request_id: int, attempt: int) -> None:
        """Answers a claim; attempt 0 means: drop it."""
        self._frame.verdicts.append(Verdict(id=request_id, run=attempt > 0, attempt=attempt))
        self._wake.set()

    def fetch(self, request_id: int) -> None:
        """Notes that the worker wants a payload."""
        self._fetches.append(request_id)
        self._wake.set()

    def cancel(self, request_id: int) -> None:
        """Tells the worker that nobody waits any more."""
        self._frame.cancelled.append(request_id)
        self._wake.set()

    def drain(self) -> None:
        """Tells the worker that this gateway goes away."""
        self._frame.draining = True
        self._wake.set()

    async def frames(self, pending: PendingTable) -> AsyncIterator[bytes]:
        """Serialised AttachResponses, for as long as the stream lives."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            frame, self._frame = self._frame, AttachResponse()
            yield frame.SerializeToString()
            while self._fetches:
                for part in _payload_parts(self._fetches.pop(), pending):
                    yield AttachResponse(payloads=[part]).SerializeToString()


def _payload_parts(request_id: int, pending: PendingTable) -> list[PayloadPart]:
    request = pending.get(request_id)
    if request is None:
        return [PayloadPart(id=request_id, gone=True)]
    body, size = request.body, PAYLOAD_PART_BYTES
    return [
        PayloadPart(id=request_id, data=body[start : start + size], last=start + size >= len(body))
        for start in range(0, len(body), size)
    ]


class ReplyChannel:
    """Handler of ReplyService.Attach: takes replies in, answers claims and fetches.

    Args:
        gateway_id, token: what a worker must have read from the queue to be let in.
        on_claim: called with what became of each claim: "run" or "drop".
    """

    def __init__(self, pending: PendingTable, gateway_id: str, token: str, on_claim: Callable[[str], None]) -> None:
        self._pending = pending
        self._gateway_id = gateway_id
        self._token = token
        self._on_claim = on_claim
        self._links: set[Link] = set()

    @property
    def workers(self) -> set[str]:
        """Ids of the workers that are attached now."""
        return {link.worker for link in self._links}

    def cancel(self, request_id: int) -> None:
        """Tells every attached worker; only one can hold the request, and which is not always known."""
        for link in self._links:
            link.cancel(request_id)

    def drain(self) -> None:
        """Tells every attached worker that this gateway goes away."""
        for link in self._links:
            link.drain()

    async def attach(self, call: Call, requests: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The stream of one worker.

        Raises:
            NotFound: the worker looks for another gateway, one that had this address before.
            Unauthenticated: the token is wrong.
        """
        first = _parse(await anext(requests, b""))
        self._check(first.hello)
        link = Link(first.hello.worker_id)
        self._links.add(link)
        link.received(0)  # an early frame tells the worker that it is in

        async def read() -> None:
            self._take(link, first)
            async for message in requests:
                self._take(link, _parse(message))

        reader = asyncio.create_task(read(), name=f"replies of {link.worker}")
        try:
            frames = link.frames(self._pending)
            while not reader.done():
                frame = asyncio.ensure_future(anext(frames))
                try:
                    await asyncio.wait({frame, reader}, return_when=asyncio.FIRST_COMPLETED)
                    if not frame.done():
                        break
                    yield frame.result()
                finally:
                    frame.cancel()
            if reader.done():
                reader.result()  # what the worker sent was malformed: the error ends its call
        finally:
            self._links.discard(link)
            reader.cancel()

    def _check(self, hello: WorkerHello) -> None:
        if hello.gateway_id != self._gateway_id:
            raise NotFound(f"this gateway is {self._gateway_id}, not {hello.gateway_id[:64]}: that one is gone")
        if not compare_digest(hello.token, self._token):
            raise Unauthenticated("the token is not this gateway's; workers read it from the queue")

    def _take(self, link: Link, frame: AttachRequest) -> None:
        """Handles one frame from a worker."""
        for reply in frame.replies:
            self._answer(reply)
        if frame.sequence:
            link.received(frame.sequence)
        for claim in frame.claims:
            attempt = self._pending.claim(claim.id, link.worker, self.workers)
            self._on_claim("run" if attempt else "drop")
            link.verdict(claim.id, attempt)
        for request_id in frame.fetches:
            link.fetch(request_id)

    def _answer(self, reply: Reply) -> None:
        """The first reply of an id counts; later ones are of no interest."""
        pending = self._pending.get(reply.id)
        if pending is None:
            return
        if reply.WhichOneof("outcome") == "error":
            fail(pending, error_of(reply.error.code, reply.error.message))
        else:
            pending.answer.set_result(reply)


def _parse(message: bytes) -> AttachRequest:
    try:
        return AttachRequest.FromString(message)
    except DecodeError as error:
        raise InvalidArgument("not an AttachRequest") from error
