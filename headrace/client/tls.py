"""TLS of a client: whom it believes, and by what it is known itself."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from grpc import aio

from headrace.client.errors import InvalidArgumentError

Options = list[tuple[str, Any]]


@dataclass(frozen=True, slots=True)
class Tls:
    """Files in PEM, read when a client is made.

    Attributes:
        ca: the issuers whose servers are believed; empty: those that grpc brings, which are the web's.
        cert, key: a certificate and its key, where servers ask for one.
        name: what a server's certificate must be for; empty: the host that is dialled.
    """

    ca: str | Path = ""
    cert: str | Path = ""
    key: str | Path = ""
    name: str = ""

    @classmethod
    def from_environment(cls) -> "Tls | None":
        """HEADRACE_TLS_CA, HEADRACE_TLS_CERT, HEADRACE_TLS_KEY and HEADRACE_TLS_NAME; None without a CA: plain text."""
        ca, cert, key, name = (os.environ.get(f"HEADRACE_TLS_{each}", "") for each in ("CA", "CERT", "KEY", "NAME"))
        return cls(ca, cert, key, name) if ca else None

    def credentials(self) -> grpc.ChannelCredentials:
        """For gRPC. Raises InvalidArgumentError: a file cannot be read, or one is given without the other."""
        if bool(self.cert) != bool(self.key):
            raise InvalidArgumentError("a certificate and its key go together: one was given without the other")
        return grpc.ssl_channel_credentials(_read(self.ca), _read(self.key), _read(self.cert))

    def options(self) -> Options:
        """Of the channel."""
        return [("grpc.ssl_target_name_override", self.name)] if self.name else []


def open_channel(address: str, tls: Tls | None, options: Options | None = None) -> grpc.Channel:
    """A channel; `tls`: None: as the environment says."""
    tls = tls or Tls.from_environment()
    if tls is None:
        return grpc.insecure_channel(address, options=options)
    return grpc.secure_channel(address, tls.credentials(), options=[*(options or []), *tls.options()])


def open_async_channel(
    address: str, tls: Tls | None, options: Options, interceptors: list[aio.ClientInterceptor]
) -> aio.Channel:
    """A channel for asyncio; `tls`: None: as the environment says."""
    tls = tls or Tls.from_environment()
    if tls is None:
        return aio.insecure_channel(address, options=options, interceptors=interceptors)
    options = [*options, *tls.options()]
    return aio.secure_channel(address, tls.credentials(), options=options, interceptors=interceptors)


def _read(path: str | Path) -> bytes | None:
    try:
        return Path(path).read_bytes() if path else None
    except OSError as error:
        raise InvalidArgumentError(f"cannot read {path}: {error.strerror}") from error
