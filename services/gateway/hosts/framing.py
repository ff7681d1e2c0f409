"""gRPC's headers and trailers by hand, for the host that speaks HTTP only. Pure. Source: the gRPC over HTTP/2 protocol
document."""

import base64
import binascii
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote

from services.common.errors import InvalidArgument

_UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}


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
