"""One gRPC stream both ways on a connection of its own, by h2 on this event loop: for what every request passes.

grpc.aio hands each message of a stream from thread to thread; here it is a few calls. That took a request of eight
callers from 550 to 352 µs of processor time (benchmarks/RESULTS.md). Servers see plain gRPC. Unary calls, and streams
that few messages pass, go by `rpc.channel`.
"""

import asyncio
import logging
import ssl
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import aclosing
from typing import TypeVar, cast
from urllib.parse import unquote

from google.protobuf.message import DecodeError, Message
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings

from services.common.errors import HeadraceError, Internal, Unavailable, error_of
from services.common.framing import Unframer, frame
from services.common.rpc import MAX_MESSAGE_BYTES
from services.common.tls import Tls

log = logging.getLogger(__name__)

M = TypeVar("M", bound=Message)

CONNECT_SECONDS = 10.0
# A connection that says nothing is pinged, and given up when it says nothing to that either.
SILENCE_SECONDS = 20.0
ANSWER_SECONDS = 10.0
WINDOW_BYTES = 16 * 1024 * 1024
_STREAM = 1  # the only one on its connection


async def open_stream(
    address: str,
    method: str,
    outgoing: AsyncIterator[Message],
    kind: type[M],
    *,
    tls: Tls | None = None,
    metadata: Iterable[tuple[str, str]] = (),
    patience: float = CONNECT_SECONDS,
) -> AsyncGenerator[M]:
    """Messages as they come, until the server ends the stream; close it (`aclosing`) to leave earlier.

    Args:
        address: host:port.
        method: "/package.Service/Method".
        outgoing: what is sent, as it comes; when it ends our side of the stream ends.
        kind: what comes.
        tls: with the certificates of now.
        patience: seconds for the connection to stand.

    Raises:
        Unavailable: the server cannot be reached, or the connection broke.
        Internal: what came is not of this kind, or `outgoing` failed.
        HeadraceError: what the stream's status says, or `outgoing` raises.
    """
    connection = await _connect(address, tls, patience)
    connection.begin(method, address, "https" if tls is not None and tls.dials else "http", metadata)
    writing = asyncio.create_task(connection.send_all(outgoing), name=f"writes to {address}")
    try:
        while (message := await connection.receive()) is not None:
            yield kind.FromString(message)
    except DecodeError as error:
        raise Internal(f"{address} sent what is no {kind.DESCRIPTOR.full_name}") from error
    finally:
        connection.close()
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)


async def _connect(address: str, tls: Tls | None, patience: float) -> "_Connection":
    host, _, port = address.rpartition(":")
    host, context, name = host.strip("[]"), None, None
    if tls is not None and tls.dials:
        context, name = tls.now.client_context(), tls.name or host
        context.set_alpn_protocols(["h2"])
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(patience):
            _, connection = await loop.create_connection(
                lambda: _Connection(address), host, int(port), ssl=context, server_hostname=name
            )
    except (OSError, ssl.SSLError, TimeoutError) as error:
        raise Unavailable(f"cannot reach {address}: {error or 'no answer'}") from error
    return connection


class _Connection(asyncio.Protocol):
    """HTTP/2 to one server. Once `_ended` is set nothing more comes, and `_error` says why, if not in order."""

    def __init__(self, address: str) -> None:
        self._address = address
        plain = H2Configuration(
            client_side=True,
            header_encoding="utf-8",
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
            validate_inbound_headers=False,
        )
        self._http = H2Connection(plain)
        self._http.local_settings = Settings(
            client=True, initial_values={SettingCodes.ENABLE_PUSH: 0, SettingCodes.INITIAL_WINDOW_SIZE: WINDOW_BYTES}
        )
        self._unframer = Unframer("", MAX_MESSAGE_BYTES)
        self._messages: deque[bytes] = deque()
        self._status: dict[str, str] = {}
        self._ended = False
        self._error: HeadraceError | None = None
        # Something came to read; there is room to write.
        self._readable, self._writable = asyncio.Event(), asyncio.Event()
        self._paused = False
        self._transport: asyncio.Transport
        self._loop = asyncio.get_running_loop()
        self._heard = self._loop.time()
        self._watch = self._loop.call_later(SILENCE_SECONDS, self._look)

    def begin(self, method: str, authority: str, scheme: str, metadata: Iterable[tuple[str, str]]) -> None:
        """Opens the stream."""
        headers = [(":method", "POST"), (":scheme", scheme), (":path", method), (":authority", authority)]
        headers += [("te", "trailers"), ("content-type", "application/grpc"), ("user-agent", "headrace"), *metadata]
        self._http.send_headers(_STREAM, headers)
        self._flush()

    async def receive(self) -> bytes | None:
        """The next message; None at the end. Raises what ended the stream, if that was no order."""
        while not self._messages:
            if self._ended:
                if self._error is not None:
                    raise self._error
                return None
            self._readable.clear()
            await self._readable.wait()
        return self._messages.popleft()

    async def send_all(self, outgoing: AsyncIterator[Message]) -> None:
        """Sends what comes, then ends our side; what `outgoing` raises ends the stream."""
        try:
            async with aclosing(cast("AsyncGenerator[Message]", outgoing)) as messages:
                async for message in messages:
                    await self._send(frame(message.SerializeToString()))
            if not self._ended:
                self._http.end_stream(_STREAM)
                self._flush()
        except HeadraceError as error:
            self._end(error)
        except ProtocolError as error:
            self._end(Unavailable(f"the connection to {self._address} broke: {error}"))
        except Exception as error:  # whoever reads must not wait for answers to what was never sent
            log.exception("what is sent to %s failed", self._address)
            self._end(Internal(f"what is sent to {self._address} failed: {error}"))

    async def _send(self, body: bytes) -> None:
        sent = 0
        while not self._ended and sent < len(body):
            room = min(self._http.local_flow_control_window(_STREAM), self._http.max_outbound_frame_size)
            if room > 0 and not self._paused:
                self._http.send_data(_STREAM, body[sent : sent + room])
                sent += room
                continue
            self._flush()
            self._writable.clear()
            await self._writable.wait()
        self._flush()

    def close(self) -> None:
        """Lets go of the connection, whatever the server makes of it."""
        self._end(None)
        self._watch.cancel()
        self._transport.close()

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol. We speak first, before anything of the server's is answered."""
        self._transport = cast("asyncio.Transport", transport)
        self._http.initiate_connection()
        self._http.increment_flow_control_window(WINDOW_BYTES)
        self._flush()

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        self._heard = self._loop.time()
        try:
            for event in self._http.receive_data(data):
                self._happened(event)
        except ProtocolError as error:
            self._end(Unavailable(f"{self._address} does not speak HTTP/2 as it should: {error}"))
        except HeadraceError as error:  # a message that is no message, or is too large
            self._end(error)
        self._flush()
        # Windows grew, most likely.
        self._writable.set()

    def pause_writing(self) -> None:
        """See asyncio.Protocol."""
        self._paused = True

    def resume_writing(self) -> None:
        """See asyncio.Protocol."""
        self._paused = False
        self._writable.set()

    def connection_lost(self, error: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._end(Unavailable(f"the connection to {self._address} broke{f': {error}' if error else ''}"))

    def _happened(self, event: Event) -> None:
        match event:
            case DataReceived():
                self._messages.extend(self._unframer.feed(event.data or b""))
                self._http.acknowledge_received_data(event.flow_controlled_length or 0, _STREAM)
                if self._messages:
                    self._readable.set()
            case ResponseReceived() | TrailersReceived():
                self._status.update(cast("dict[str, str]", dict(event.headers or ())))
            case StreamEnded():
                self._end(self._outcome())
            case StreamReset() | ConnectionTerminated():
                self._end(Unavailable(f"{self._address} broke the stream off: code {event.error_code}"))
            case _:
                pass

    def _outcome(self) -> HeadraceError | None:
        """What the stream's headers and trailers say of it."""
        if code := self._status.get("grpc-status"):
            message = unquote(self._status.get("grpc-message", ""))
            return error_of(int(code), message) if code != "0" else None
        return Unavailable(
            f"{self._address} answered with HTTP status {self._status.get(':status')}, and no gRPC status"
        )

    def _end(self, error: HeadraceError | None) -> None:
        if not self._ended:
            self._ended, self._error = True, error
            self._readable.set()
            self._writable.set()

    def _flush(self) -> None:
        if data := self._http.data_to_send():
            self._transport.write(data)

    def _look(self) -> None:
        """Every so often: is the server still there? A machine that is cut off says nothing at all."""
        silent = self._loop.time() - self._heard
        if silent >= SILENCE_SECONDS + ANSWER_SECONDS:
            self._end(Unavailable(f"{self._address} has said nothing for {silent:.0f} s"))
            self._transport.abort()
            return
        if silent >= SILENCE_SECONDS:
            self._http.ping(b"headrace")
            self._flush()
        self._watch = self._loop.call_later(max(ANSWER_SECONDS, SILENCE_SECONDS - silent), self._look)
