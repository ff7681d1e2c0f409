"""The gateway's side of the reply channel: one link for each attached worker stream."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from hmac import compare_digest

from google.protobuf.message import DecodeError

from headrace.v1.reply_pb2 import AttachRequest, AttachResponse, PayloadPart, Progress, Reply, Verdict, WorkerHello
from services.common.errors import HeadraceError, InvalidArgument, NotFound, Unauthenticated, error_of
from services.gateway.calls import Call
from services.gateway.dispatch.pending import Pending, PendingTable, fail
from services.gateway.dispatch.text_stream import TextStream

PAYLOAD_PART_BYTES = 1024 * 1024
# How long a receipt waits for others: a message costs as much as several requests do.
RECEIPT_SECONDS = 0.005


class Link:
    """What is to be sent down to one worker; whatever gathers while a frame is written goes into the next."""

    def __init__(self, worker: str) -> None:
        self.worker = worker
        self._frame = AttachResponse()
        self._fetches: list[int] = []
        self._wake = asyncio.Event()
        self._receipt_due = False
        self._ended = False

    def received(self, sequence: int, *, hurry: bool = True) -> None:
        """Confirms every reply frame up to `sequence`; without hurry, together with those that come meanwhile."""
        self._frame.received = sequence
        if hurry:
            self._wake.set()
        elif not self._receipt_due:
            self._receipt_due = True
            asyncio.get_running_loop().call_later(RECEIPT_SECONDS, self._confirm)

    def _confirm(self) -> None:
        self._receipt_due = False
        if self._frame.received:  # else it went with something else
            self._wake.set()

    def verdict(self, request_id: int, attempt: int, progress: Sequence[Progress] = ()) -> None:
        """Answers a claim; attempt 0 means: drop it. `progress` is what a generation's caller has already."""
        self._frame.verdicts.append(Verdict(id=request_id, run=attempt > 0, attempt=attempt, progress=progress))
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

    def end(self) -> None:
        """The worker has no more to say: so have we."""
        self._ended = True
        self._wake.set()

    async def frames(self, pending: PendingTable) -> AsyncGenerator[bytes]:
        """Serialised AttachResponses, until `end`."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._ended:
                return
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
        # Claims on generations that another worker is running, by request: granted if that worker goes away.
        self._standby: dict[int, list[Link]] = {}

    @property
    def workers(self) -> set[str]:
        """Ids, with incarnations, of the workers that are attached now."""
        return {link.worker for link in self._links}

    def cancel(self, request_id: int) -> None:
        """Tells every attached worker; only one can hold the request, and which is not always known."""
        for link in self._links:
            link.cancel(request_id)

    def over(self, request_id: int) -> None:
        """The generation needs no worker any more: those who stand by for it may drop it."""
        for link in self._standby.pop(request_id, ()):
            link.verdict(request_id, 0)

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
        link = Link(f"{first.hello.worker_id}/{first.hello.incarnation}")
        self._links.add(link)
        link.received(0)  # an early frame tells the worker that it is in

        async def read() -> None:
            self._take(link, first)
            async for message in requests:
                self._take(link, _parse(message))

        reader = asyncio.create_task(read(), name=f"replies of {link.worker}")
        reader.add_done_callback(lambda _: link.end())
        try:
            async with aclosing(link.frames(self._pending)) as frames:
                async for frame in frames:
                    yield frame
            await reader  # what the worker sent was malformed: the error ends its call
        finally:
            self._links.discard(link)
            reader.cancel()
            self._free()

    def _check(self, hello: WorkerHello) -> None:
        if hello.gateway_id != self._gateway_id:
            raise NotFound(f"this gateway is {self._gateway_id}, not {hello.gateway_id[:64]}: that one is gone")
        if not compare_digest(hello.token.encode(), self._token.encode()):
            raise Unauthenticated("the token is not this gateway's; workers read it from the queue")

    def _take(self, link: Link, frame: AttachRequest) -> None:
        """Handles one frame from a worker."""
        for reply in frame.replies:
            self._answer(link, reply)
        if frame.sequence:
            link.received(frame.sequence, hurry=frame.hurry)
        for claim in frame.claims:
            self._claim(link, claim.id)
        for request_id in frame.fetches:
            link.fetch(request_id)

    def _answer(self, link: Link, reply: Reply) -> None:
        """The first reply of an id counts; later ones are of no interest."""
        pending = self._pending.get(reply.id)
        if pending is None:
            return
        if pending.stream is not None:
            self._go_on(link, reply, pending, pending.stream)
        elif reply.WhichOneof("outcome") == "error":
            fail(pending, error_of(reply.error.code, reply.error.message))
        else:
            pending.answer.set_result(reply)

    def _go_on(self, link: Link, reply: Reply, pending: Pending, stream: TextStream) -> None:
        """One more piece of a generation, if it comes from the worker whose tokens count."""
        if pending.holder not in {"", link.worker}:
            link.cancel(reply.id)
            return
        pending.holder = link.worker
        match reply.WhichOneof("outcome"):
            case "error":
                fail(pending, error_of(reply.error.code, reply.error.message))
            case "released":
                pending.holder = ""
                self._free()
            case _:
                try:
                    stream.take(reply)
                except HeadraceError as error:
                    fail(pending, error)
                if stream.complete and not pending.answer.done():
                    pending.answer.set_result(reply)

    def _claim(self, link: Link, request_id: int) -> None:
        """Answers a claim; one on a generation that a live worker runs waits until that has ended one way or another.

        A worker's death may be seen by the broker before it is seen here: a claim that was refused too early would be a
        request lost.
        """
        if self._pending.held_elsewhere(request_id, link.worker, self.workers) is not None:
            self._standby.setdefault(request_id, []).append(link)
            return
        attempt = self._pending.claim(request_id, link.worker, self.workers)
        self._on_claim("run" if attempt else "drop")
        pending = self._pending.get(request_id) if attempt else None
        stream = pending.stream if pending is not None else None
        link.verdict(request_id, attempt, stream.progress() if stream is not None else ())

    def _free(self) -> None:
        """A worker went away or gave something up: whoever stands by asks again."""
        standby, self._standby = self._standby, {}
        for request_id, links in standby.items():
            for link in links:
                if link in self._links:
                    self._claim(link, request_id)


def _parse(message: bytes) -> AttachRequest:
    try:
        return AttachRequest.FromString(message)
    except DecodeError as error:
        raise InvalidArgument("not an AttachRequest") from error
