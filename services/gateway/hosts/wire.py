"""One gRPC call over ASGI events: the messages that come in, and the answer.

Futures of pyvoy are shielded: a cancelled one would make pyvoy's later `set_result` fail, and log it, for every
caller that leaves.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable

from services.common.errors import Cancelled, HeadraceError, InvalidArgument, status_of
from services.common.framing import ACCEPTED_ENCODINGS, Unframer, frame
from services.gateway.application import Event
from services.gateway.calls import Call
from services.gateway.hosts.details import add_details
from services.gateway.hosts.framing import encode_message, shown, trailer

_HEADERS = [(b"content-type", b"application/grpc"), (b"grpc-accept-encoding", ACCEPTED_ENCODINGS)]
_START: Event = {"type": "http.response.start", "status": 200, "headers": _HEADERS, "trailers": True}
_NOTHING: Event = {"type": "http.response.body", "body": b""}
_STATUS_OK = (b"grpc-status", b"0")
_OK: Event = {"type": "http.response.trailers", "headers": [_STATUS_OK]}

# A caller is looked for behind what it has sent as long as no more than this waits unread.
MOST_UNREAD_BYTES = 1024 * 1024

Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]


def waiting(receive: Receive, seconds: float) -> Receive:
    """A `receive` for plain HTTP that waits for the disconnect after the body's end, as ASGI has it.

    pyvoy's own returns at once and empty, so it is asked again every so many seconds.
    """
    over = False

    async def patient() -> Event:
        nonlocal over
        while True:
            event = await asyncio.shield(asyncio.ensure_future(receive()))
            if event["type"] == "http.disconnect" or not over:
                over = not event.get("more_body", False)
                return event
            await asyncio.sleep(seconds)

    return patient


class Incoming:
    """What the client sends.

    Args:
        left: called once when the client is found to have gone while its body was still open.

    Attributes:
        over: the client has sent everything: from here on pyvoy tells of a disconnect only when asked.
    """

    __slots__ = ("_asked", "_left", "_receive", "_unframer", "over")

    def __init__(self, receive: Receive, unframer: Unframer, left: Callable[[], None]) -> None:
        self._receive = receive
        self._unframer = unframer
        self._left = left
        # Events asked for and not yet read, oldest first; only the last may still be to come.
        self._asked: deque[asyncio.Future[Event]] = deque()
        self.over = False

    async def one(self) -> bytes:
        """The single message of a unary call. Raises InvalidArgument, TooLarge, Cancelled."""
        event = await self._receive()
        if event["type"] != "http.disconnect" and not event.get("more_body", False):
            self.over = True
            message = self._unframer.whole(event.get("body", b""))
            if message is not None:
                return message
        found: list[bytes] = []
        while True:
            if event["type"] == "http.disconnect":
                raise Cancelled("the caller left")
            found += self._unframer.feed(event.get("body", b""))
            if not event.get("more_body", False):
                break
            event = await asyncio.shield(self._receive())
        self.over = True
        self._unframer.end()
        if len(found) != 1:
            raise InvalidArgument(f"a unary call carries one message; {len(found)} came")
        return found[0]

    async def messages(self) -> AsyncIterator[bytes]:
        """Messages as they come in, until the client has sent everything."""
        more = True
        while more:
            self.watch()
            event = await asyncio.shield(self._asked[0])
            self._asked.popleft()
            if event["type"] == "http.disconnect":
                raise Cancelled("the caller left")
            more = event.get("more_body", False)
            if more:
                self.watch()
            for message in self._unframer.feed(event.get("body", b"")):
                yield message
        self._unframer.end()

    async def gone(self) -> bool:
        """Whether the client has left, once its body is over."""
        event = await self._receive()
        return bool(event["type"] == "http.disconnect")

    def watch(self) -> None:
        """Asks for the next event before the handler wants it: a caller that leaves is noticed while nobody reads."""
        if not self._asked:
            self._ask()

    def look_further(self) -> None:
        """Asks for one more event where all that were asked for have come unread: the next may be the disconnect."""
        came = [event.result() for event in self._asked if event.done() and not event.cancelled()]
        unread = sum(len(event.get("body", b"")) for event in came)
        if len(came) == len(self._asked) and not self.over and unread <= MOST_UNREAD_BYTES:
            self._ask()

    def _ask(self) -> None:
        event = asyncio.ensure_future(self._receive())
        self._asked.append(event)
        event.add_done_callback(self._came)

    def _came(self, event: "asyncio.Future[Event]") -> None:
        if event.cancelled() or event.exception() is not None:
            return
        if event.result()["type"] == "http.disconnect":
            self._left()
        else:
            self.over = not event.result().get("more_body", False)


class Outgoing:
    """The answer of one call."""

    __slots__ = ("_call", "_send", "_started")

    def __init__(self, send: Send, call: Call) -> None:
        self._send = send
        self._call = call
        self._started = False

    async def unary(self, message: bytes) -> None:
        """The whole answer at once."""
        self._started = True
        await self._send(_START)
        await self._send({"type": "http.response.body", "body": frame(message)})
        await self._send(self._trailers([_STATUS_OK]) if self._call.trailing else _OK)

    async def start(self) -> None:
        """Headers now: pyvoy sends them with the first body only, so an empty one goes out."""
        self._started = True
        await self._send(_START)
        await self._flush(b"")

    async def message(self, message: bytes) -> None:
        """One message of a stream; waits while the client reads too slowly."""
        await self._flush(frame(message))

    async def end(self) -> None:
        """The stream is over."""
        await self._send(_NOTHING)
        await self._send(self._trailers([_STATUS_OK]))

    async def fail(self, error: HeadraceError) -> None:
        """The error's status: in the trailers, or in the headers where nothing has been sent."""
        add_details(self._call, error)
        status = [
            (b"grpc-status", str(status_of(error).grpc).encode()),
            (b"grpc-message", encode_message(shown(str(error)))),
        ]
        if self._started:
            await self._send(_NOTHING)
            await self._send(self._trailers(status))
            return
        headers = [*_HEADERS, *self._trailers(status)["headers"]]
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        await self._send(_NOTHING)

    async def _flush(self, body: bytes) -> None:
        sent = self._send({"type": "http.response.body", "body": body, "more_body": True})
        await asyncio.shield(sent)

    def _trailers(self, status: list[tuple[bytes, bytes]]) -> Event:
        trailing = [trailer(key, value) for key, value in self._call.trailing.items()]
        return {"type": "http.response.trailers", "headers": [*status, *trailing]}
