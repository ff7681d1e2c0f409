"""An HTTP/2 client that says whatever it is told to: gRPC's own clients refuse to misbehave."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import unquote

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    RemoteSettingsChanged,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
    WindowUpdated,
)
from h2.exceptions import ProtocolError

Headers = list[tuple[bytes, bytes]]


@dataclass(slots=True)
class Answer:
    """What came back on one stream.

    Attributes:
        headers: of the response and of its trailers, the latter last.
        reset: the error code of a stream that was reset; None if it ended.
    """

    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    reset: int | None = None

    @property
    def grpc_status(self) -> int | None:
        """None where the server answered without gRPC's trailers."""
        status = self.headers.get("grpc-status")
        return None if status is None else int(status)

    @property
    def message(self) -> str:
        """The text of a gRPC error."""
        return unquote(self.headers.get("grpc-message", ""))


class Http2Client:
    """One connection; any number of streams at once."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        config = H2Configuration(
            header_encoding=None, validate_outbound_headers=False, normalize_outbound_headers=False
        )
        self._h2 = H2Connection(config)
        self._answers: dict[int, tuple[Answer, asyncio.Future[Answer]]] = {}
        self._window = asyncio.Event()
        self._closed = False
        self._h2.initiate_connection()
        self._flush()

    async def call(self, headers: Headers, body: bytes) -> Answer:
        """Sends a request and waits for the whole answer. Raises ConnectionError where the connection ends first."""
        if self._closed:
            raise ConnectionError("the server closed the connection")
        stream = self._h2.get_next_available_stream_id()
        done: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._answers[stream] = (Answer(), done)
        self._h2.send_headers(stream, headers)
        with contextlib.suppress(ProtocolError):  # the server answered, or reset the stream, before it read everything
            await self._send(stream, body)
        self._flush()
        return await done

    async def _send(self, stream: int, body: bytes) -> None:
        rest = memoryview(body)
        while rest:
            size = min(len(rest), self._h2.local_flow_control_window(stream), self._h2.max_outbound_frame_size)
            if size <= 0:
                self._flush()
                self._window.clear()
                await self._window.wait()
                continue
            self._h2.send_data(stream, bytes(rest[:size]))
            rest = rest[size:]
        self._h2.end_stream(stream)

    async def read(self) -> None:
        """Takes in what the server says, until it closes."""
        try:
            while data := await self._reader.read(1 << 16):
                for event in self._h2.receive_data(data):
                    self._take(event)
                self._flush()
        finally:
            self._closed = True
            self._window.set()
            for _, done in self._answers.values():
                if not done.done():
                    done.set_exception(ConnectionError("the server closed the connection"))

    def _take(self, event: Event) -> None:
        if isinstance(event, WindowUpdated | RemoteSettingsChanged):
            self._window.set()
            return
        if isinstance(event, ConnectionTerminated):
            raise ConnectionError(f"the server said goodbye: error {event.error_code}, {event.additional_data!r}")
        stream = getattr(event, "stream_id", None)
        if stream not in self._answers:
            return
        answer, done = self._answers[stream]
        if isinstance(event, ResponseReceived | TrailersReceived):
            answer.headers |= {key.decode(): value.decode("latin-1") for key, value in event.headers or ()}
        elif isinstance(event, DataReceived):
            answer.body += event.data or b""
            self._h2.acknowledge_received_data(event.flow_controlled_length or 0, stream)
        elif isinstance(event, StreamEnded | StreamReset):
            answer.reset = int(event.error_code) if isinstance(event, StreamReset) else None
            del self._answers[stream]
            if not done.done():
                done.set_result(answer)

    def _flush(self) -> None:
        self._writer.write(self._h2.data_to_send())


@asynccontextmanager
async def http2(address: str) -> AsyncIterator[Http2Client]:
    """A connection until the block ends."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    client = Http2Client(reader, writer)
    reading = asyncio.create_task(client.read(), name="http2 client")
    try:
        yield client
    finally:
        reading.cancel()
        with contextlib.suppress(asyncio.CancelledError, ConnectionError):
            await reading
        writer.close()
