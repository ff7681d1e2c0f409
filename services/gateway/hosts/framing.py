"""gRPC's framing by hand, for the host that speaks HTTP only. Pure. Source: the gRPC over HTTP/2 protocol document."""

import base64
import binascii
import struct
import zlib
from collections.abc import Iterable, Iterator
from urllib.parse import quote

from services.common.errors import InvalidArgument, TooLarge, Unimplemented
from services.gateway.calls import Metadata

PREFIX = struct.Struct(">BI")
_UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_ENCODINGS = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
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
        if encoding not in {"", "identity", *_ENCODINGS}:
            raise Unimplemented(f"grpc-encoding '{encoding[:32]}' is not known; send identity, gzip or deflate")
        self._encoding = encoding
        self._limit = limit
        self._buffer = bytearray()

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
        return plain


def parse_timeout(value: str) -> float:
    """grpc-timeout in seconds. Raises InvalidArgument."""
    if not (2 <= len(value) <= 9 and value[:-1].isascii() and value[:-1].isdigit() and value[-1] in _UNITS):
        raise InvalidArgument(f"grpc-timeout '{value[:16]}': expected up to eight digits and one of H, M, S, m, u, n")
    return int(value[:-1]) * _UNITS[value[-1]]


def encode_message(message: str) -> bytes:
    """grpc-message: percent-encoded UTF-8."""
    return quote(message, safe=" !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~").encode()


def metadata_of(headers: Iterable[tuple[bytes, bytes]]) -> Metadata:
    """Request metadata; values of "-bin" keys are decoded. Raises InvalidArgument."""
    metadata: dict[str, str | bytes] = {}
    for raw_key, raw_value in headers:
        key = raw_key.decode("latin-1")
        if key.endswith("-bin"):
            try:
                metadata[key] = base64.b64decode(raw_value + b"=" * (-len(raw_value) % 4))
            except (binascii.Error, ValueError) as error:
                raise InvalidArgument(f"metadata '{key[:64]}' is not base64") from error
        else:
            metadata[key] = raw_value.decode("latin-1")
    return metadata


def trailer(key: str, value: str | bytes) -> tuple[bytes, bytes]:
    """One entry of trailing metadata on the wire."""
    if isinstance(value, bytes):
        return key.encode(), base64.b64encode(value).rstrip(b"=")
    return key.encode(), value.encode("latin-1", "replace")
