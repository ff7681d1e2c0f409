"""gRPC's framing by hand, for the host that speaks HTTP only. Pure. Source: the gRPC over HTTP/2 protocol document."""

import base64
import binascii
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote

from services.common.errors import InvalidArgument, TooLarge, Unimplemented

PREFIX = struct.Struct(">BI")
_UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
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


def parse_timeout(value: str) -> float:
    """grpc-timeout in seconds. Raises InvalidArgument."""
    if not (2 <= len(value) <= 9 and value[:-1].isascii() and value[:-1].isdigit() and value[-1] in _UNITS):
        raise InvalidArgument(f"grpc-timeout '{value[:16]}': expected up to eight digits and one of H, M, S, m, u, n")
    return int(value[:-1]) * _UNITS[value[-1]]


def encode_message(message: str) -> bytes:
    """grpc-message: percent-encoded UTF-8."""
    return quote(message, safe=" !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~", errors="replace").encode()


def shown(message: str) -> str:
    """An error's text cut to what fits into the headers that every client accepts (8 KiB when encoded)."""
    most = 2048 if message.isascii() else 512
    return message if len(message) <= most else message[: most - 1] + "…"


def is_grpc(content_type: bytes) -> bool:
    """Whether it is application/grpc, with or without a subtype or parameters; grpc-web is another protocol."""
    return content_type.startswith(b"application/grpc") and content_type[16:17] in b"+;"


class HeaderMetadata(Mapping[str, str | bytes]):
    """Request metadata read from the headers when it is asked for: nearly every call looks at two or three keys.

    Values of "-bin" keys are decoded; of repeated keys the last counts.

    Raises:
        InvalidArgument: at once, where the value of a "-bin" key is not base64.
    """

    __slots__ = ("_decoded", "_raw")

    def __init__(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        self._raw = dict(headers)
        self._decoded = {key: _decode_binary(key, self._raw[key]) for key in self._raw if key.endswith(b"-bin")}

    def __getitem__(self, key: str) -> str | bytes:
        raw_key = key.encode("latin-1")
        return self._decoded[raw_key] if key.endswith("-bin") else self._raw[raw_key].decode("latin-1")

    def get(self, key: str, default: Any = None) -> Any:
        """As a mapping's: written out because most keys that are asked for are not there, and Mapping's own raises
        and catches for each of them."""
        raw_key = key.encode("latin-1")
        if raw_key not in self._raw:
            return default
        return self._decoded[raw_key] if raw_key.endswith(b"-bin") else self._raw[raw_key].decode("latin-1")

    def __iter__(self) -> Iterator[str]:
        return (key.decode("latin-1") for key in self._raw)

    def __len__(self) -> int:
        return len(self._raw)


def _decode_binary(key: bytes, value: bytes) -> bytes:
    last = value.rpartition(b",")[2].strip()
    try:
        return base64.b64decode(last + b"=" * (-len(last) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidArgument(f"metadata '{key[:64].decode('latin-1')}' is not base64") from error


def plain_value(value: str) -> str:
    """Metadata without "-bin" is printable ASCII; anything else becomes "?" rather than break the whole answer."""
    if value.isascii() and value.isprintable():
        return value
    return "".join(character if " " <= character <= "~" else "?" for character in value)


def trailer(key: str, value: str | bytes) -> tuple[bytes, bytes]:
    """One entry of trailing metadata on the wire."""
    if isinstance(value, bytes):
        return key.encode(), base64.b64encode(value).rstrip(b"=")
    return key.encode(), plain_value(value).encode()
