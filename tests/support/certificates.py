"""Certificates for the tests: an issuer, and files that can be replaced while a process looks at them."""

import datetime
import socket
import ssl
from pathlib import Path

import trustme
from cryptography import x509

from headrace.client.tls import Tls

NAMES = ("127.0.0.1", "localhost")


class Certificates:
    """`ca.pem`, `own.pem` and `own.key` in a folder, good for this machine."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.ca_file, self.cert, self.key = folder / "ca.pem", folder / "own.pem", folder / "own.key"
        self.issuer = trustme.CA()
        self.issuer.cert_pem.write_to_path(str(self.ca_file))
        self.serial = self.renew()

    def renew(self, *names: str, days: int = 30) -> int:
        """Another certificate in the files, moved into place; its serial number. Fewer than 0 days: expired."""
        now = datetime.datetime.now(datetime.UTC)
        issued = self.issuer.issue_cert(
            *(names or NAMES),
            not_before=now - datetime.timedelta(days=60),
            not_after=now + datetime.timedelta(days=days),
        )
        put(self.key, issued.private_key_pem.bytes())
        put(self.cert, b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        self.serial = x509.load_pem_x509_certificate(self.cert.read_bytes()).serial_number
        return self.serial

    def environment(self) -> dict[str, str]:
        """For a process that asks its callers for certificates of the same issuer."""
        named = {"CA": self.ca_file, "CERT": self.cert, "KEY": self.key, "CLIENT_CA": self.ca_file}
        return {f"HEADRACE_TLS_{which}": str(path) for which, path in named.items()}

    def client(self) -> Tls:
        """A client with a certificate."""
        return Tls(ca=self.ca_file, cert=self.cert, key=self.key)

    def stranger(self) -> Tls:
        """A client without one."""
        return Tls(ca=self.ca_file)

    def context(self, *, known: bool = True) -> ssl.SSLContext:
        """For HTTPS; `known`: with the certificate."""
        context = ssl.create_default_context(cafile=self.ca_file)
        if known:
            context.load_cert_chain(self.cert, self.key)
        return context

    def presented(self, address: str) -> int:
        """The serial number of what a server shows in a new handshake."""
        host, _, port = address.rpartition(":")
        with socket.create_connection((host, int(port)), 10) as plain:
            context = self.context()
            context.set_alpn_protocols(["h2"])
            with context.wrap_socket(plain, server_hostname=host) as secured:
                shown = secured.getpeercert(binary_form=True)
        assert shown is not None
        return x509.load_der_x509_certificate(shown).serial_number


def put(path: Path, content: bytes) -> None:
    """Writes beside and moves into place."""
    partial = path.with_suffix(".partial")
    partial.write_bytes(content)
    partial.replace(path)
