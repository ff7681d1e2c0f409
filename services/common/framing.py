"""gRPC's own framing of messages on a body. Pure. Source: the gRPC over HTTP/2 protocol document."""

import struct
import zlib
from collections.abc import Iterator

from services.common.errors import InvalidArgument, TooLarge, Unimplemented

PREFIX = struct.Struct(">BI")
_ENCODINGS = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
_KNOWN_ENCODINGS = frozenset(("", "identity", *_ENCODINGS))
ACCEPTED_ENCODINGS = b"identity,deflate,gzip"


def frame(message: bytes) -> bytes:
    """One uncompressed message behind its five-byte prefix."""
    return PREFIX.pack(0, len(message)) + message


class Unframer:
    """Cuts a body, which comes in chunks of any size, into messages.

    Args:
        encoding: the call's grpc-encoding; messages with the compressed flag are inflated with it.
        limit: most bytes of one message, compressed or not.
    """

    def __init__(self, encoding: str, limit: int) -> None:
        if encoding not in _KNOWN_ENCODINGS:
            raise Unimplemented(f"grpc-encoding '{encoding[:32]}' is not known; send identity, gzip or deflate")
        self._encoding = encoding
        self._limit = limit
        self._buffer = bytearray()

    def whole(self, body: bytes) -> bytes | None:
        """The message of a body that is complete and holds just one, uncompressed; None if `feed` must look at it.

        This is how nearly every unary call comes.
        """
        if len(body) >= 5:
            flag, size = PREFIX.unpack_from(body)
            if flag == 0 and size == len(body) - 5 and size <= self._limit:
                return body[5:]
        return None

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """The messages that are complete with this chunk. Raises InvalidArgument, TooLarge."""
        self._buffer += chunk
        while len(self._buffer) >= 5:
            flag, size = PREFIX.unpack_from(self._buffer)
            if flag > 1:
                raise InvalidArgument("the body is not gRPC: a message's first byte is neither 0 nor 1")
            if size > self._limit:
                raise TooLarge(f"a message of {size} bytes is over the limit of {self._limit}; send less at once")
            if len(self._buffer) < 5 + size:
                return
            message = bytes(memoryview(self._buffer)[5 : 5 + size])
            del self._buffer[: 5 + size]
            yield self._inflate(message) if flag else message

    def end(self) -> None:
        """The body is over. Raises InvalidArgument if it broke off inside a message."""
        if self._buffer:
            raise InvalidArgument(f"the body broke off inside a message: {len(self._buffer)} bytes are left over")

    def _inflate(self, message: bytes) -> bytes:
        """Bounded: a small bomb must not become a large message."""
        if self._encoding not in _ENCODINGS:
            raise InvalidArgument("a message is marked as compressed but the call names no grpc-encoding")
        inflater = zlib.decompressobj(_ENCODINGS[self._encoding])
        try:
            plain = inflater.decompress(message, self._limit + 1)
        except zlib.error as error:
            raise InvalidArgument(f"a message marked as {self._encoding} cannot be inflated: {error}") from error
        if len(plain) > self._limit:
            raise TooLarge(f"a message inflates to more than the limit of {self._limit} bytes; send less at once")
        if not inflater.eof:
            raise InvalidArgument(f"a message marked as {self._encoding} breaks off before its end; send it whole")
        return plain
