"""Certificates from files: read and checked as a whole, looked at each second, the last good ones kept.

A process shows one certificate, to those who call it and to those whom it calls. Files that do not belong together keep
it from starting; later they change nothing and are told of in the log, since half of a rotation is no reason to stop.
"""

import asyncio
import logging
import os
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from services.common.errors import InvalidArgument
from services.common.settings import ServiceSettings

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Identity:
    """One reading of the files, in PEM; empty: there is no such file.

    Attributes:
        chain, key: this process's certificate with those that lead to its issuer, and its private key.
        ca: by whom the certificates of processes that this one calls must be issued.
        client_ca: by whom those of its callers must be.
        store_ca: by whom the S3 store's must be.
    """

    chain: bytes = b""
    key: bytes = b""
    ca: bytes = b""
    client_ca: bytes = b""
    store_ca: bytes = b""

    def server_context(self) -> ssl.SSLContext:
        """For HTTP servers."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._show(context)
        if self.client_ca:
            context.load_verify_locations(cadata=self.client_ca.decode())
            context.verify_mode = ssl.CERT_REQUIRED
            # A resumed session shows no certificate again: whose issuer was taken out would still get in.
            context.num_tickets = 0
            context.options |= ssl.OP_NO_TICKET
        return context

    def client_context(self) -> ssl.SSLContext:
        """For HTTP and AMQP clients."""
        context = ssl.create_default_context(cadata=self.ca.decode())
        self._show(context)
        return context

    def store_context(self) -> ssl.SSLContext:
        """For what is fetched from the S3 store. It is shown no certificate: URLs are signed, and S3 asks for none."""
        return ssl.create_default_context(cadata=self.store_ca.decode() or None)

    def _show(self, context: ssl.SSLContext) -> None:
        if self.chain:
            with _as_file(self.chain + b"\n" + self.key) as path:
                context.load_cert_chain(path)


class Tls:
    """The certificates of this process.

    Attributes:
        now: the last good reading.
        name: what certificates of processes that this one calls must be for; empty: the host that is dialled.
        revision: counts the readings that brought something new.
        on_change: called after each of them.
    """

    def __init__(self, settings: ServiceSettings) -> None:
        self._files = tuple(Path(path) if path else None for path in _named(settings))
        self.now = Identity()
        self.name = settings.tls_name
        self.revision = 0
        self.on_change: Callable[[], None] = lambda: None
        self._seen: object = None
        self._doubted: object = None

    @property
    def serves(self) -> bool:
        """Callers must speak TLS."""
        return bool(self.now.chain)

    @property
    def dials(self) -> bool:
        """Others are called by TLS."""
        return bool(self.now.ca)

    def look(self) -> bool:
        """Reads the files if they are others than before; whether they were. Raises InvalidArgument: the old stay."""
        stamp = tuple(_stamp(path) for path in self._files)
        if stamp == self._seen:
            return False
        identity = _checked(Identity(*(_read(path) for path in self._files)), self._files)
        self._seen = stamp
        if identity == self.now:
            return False
        self.now = identity
        self.revision += 1
        self.on_change()
        return True

    async def follow(self) -> None:
        """Looks at the files for ever. What is wrong is told once it has been so twice: files change one by one."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            stamp = tuple(_stamp(path) for path in self._files)
            try:
                if self.look():
                    log.info("new certificates are in use, good until %s", good_until(self.now))
            except (InvalidArgument, OSError) as error:
                if stamp == self._doubted:
                    log.warning("the old certificates stay in use: %s", error)
                    self._seen = stamp
                self._doubted = stamp


def latest_context(tls: Tls) -> ssl.SSLContext:
    """A server's context whose handshakes each go on with the certificates of now; they may come on any thread."""
    first, known, current = tls.now.server_context(), tls.revision, tls.now.server_context()

    def switch(handshake: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        nonlocal known, current
        if tls.revision != known:
            known, current = tls.revision, tls.now.server_context()
        handshake.context = current

    first.sni_callback = switch
    return first


@asynccontextmanager
async def open_tls(settings: ServiceSettings) -> AsyncIterator[Tls | None]:
    """The certificates that the settings name, followed until left; None: they name none. Raises InvalidArgument."""
    if not any(_named(settings)):
        yield None
        return
    tls = Tls(settings)
    tls.look()
    following = asyncio.create_task(tls.follow(), name="certificates")
    try:
        yield tls
    finally:
        following.cancel()


def _named(settings: ServiceSettings) -> tuple[str, ...]:
    """In the order of Identity."""
    named = (settings.tls_cert, settings.tls_key, settings.tls_ca, settings.tls_client_ca)
    return (*named, settings.tls_store_ca)


def good_until(identity: Identity) -> str:
    """When the first certificate of a reading ends."""
    chains = (identity.chain, identity.ca, identity.client_ca, identity.store_ca)
    ends = [each.not_valid_after_utc for pem in chains if pem for each in x509.load_pem_x509_certificates(pem)]
    return min(ends).isoformat(timespec="minutes")


def _checked(identity: Identity, files: tuple[Path | None, ...]) -> Identity:
    cert, key, ca, client_ca, store_ca = files
    if bool(cert) != bool(key):
        raise InvalidArgument("HEADRACE_TLS_CERT and HEADRACE_TLS_KEY go together: one is set without the other")
    if client_ca and not cert:
        raise InvalidArgument(
            "HEADRACE_TLS_CLIENT_CA asks callers for certificates: HEADRACE_TLS_CERT must be set, too"
        )
    for path, pem in ((ca, identity.ca), (client_ca, identity.client_ca), (store_ca, identity.store_ca)):
        if path is not None:
            _certificates(path, pem)
    if cert is not None and key is not None:
        own = _certificates(cert, identity.chain)[0]
        now = datetime.now(UTC)
        if now > own.not_valid_after_utc:
            raise InvalidArgument(f"{cert}: the certificate expired at {own.not_valid_after_utc}; put a new one there")
        if now < own.not_valid_before_utc:
            raise InvalidArgument(f"{cert}: the certificate is good from {own.not_valid_before_utc} only")
        if _public(own) != _public_of_key(key, identity.key):
            raise InvalidArgument(
                f"{key} is not the key of the certificate in {cert}; put the two that belong together"
            )
    return identity


def _certificates(path: Path, pem: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise InvalidArgument(f"{path} holds no certificates in PEM: {error}") from error


def _public(certificate: x509.Certificate) -> bytes:
    return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _public_of_key(path: Path, pem: bytes) -> bytes:
    try:
        key = load_pem_private_key(pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise InvalidArgument(f"{path} holds no private key in PEM without a password: {error}") from error
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _read(path: Path | None) -> bytes:
    try:
        return path.read_bytes() if path is not None else b""
    except OSError as error:
        raise InvalidArgument(f"cannot read {path}: {error.strerror}") from error


def _stamp(path: Path | None) -> tuple[int, int, int] | None:
    try:
        status = path.stat() if path is not None else None
    except OSError:
        return (0, 0, 0)
    return (status.st_mtime_ns, status.st_size, status.st_ino) if status is not None else None


@contextmanager
def _as_file(content: bytes) -> Iterator[str]:
    """A path at which the content can be read, in memory only: a key is not written to a disk once more."""
    handle = os.memfd_create("headrace-tls")
    try:
        os.write(handle, content)
        yield f"/proc/self/fd/{handle}"
    finally:
        os.close(handle)
