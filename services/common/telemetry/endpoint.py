"""The Prometheus endpoint: a process's metrics over HTTP, by TLS where the process has certificates to show."""

import logging
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app

from services.common.tls import Tls, latest_context

log = logging.getLogger(__name__)

SILENT_SECONDS = 10.0
END_SECONDS = 2.0


class _Handler(WSGIRequestHandler):
    timeout = SILENT_SECONDS

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # its name there
        """Scrapes are no news."""


class _Server(ThreadingMixIn, WSGIServer):
    """A thread for each connection, which makes the handshake there: who says nothing holds up nobody else.

    Raises:
        OSError: the address cannot be bound.
    """

    daemon_threads = True

    def __init__(self, host: str, port: int, tls: Tls | None) -> None:
        self.address_family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        self._asks = tls is not None and bool(tls.now.client_ca)
        super().__init__((host, port), _Handler)
        if tls is not None and tls.serves:
            wrap = latest_context(tls).wrap_socket
            self.socket = wrap(self.socket, server_side=True, do_handshake_on_connect=False)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A refused handshake, for the most part."""
        why = (
            "; whoever reads metrics must show a certificate of HEADRACE_TLS_CLIENT_CA's issuers" if self._asks else ""
        )
        log.warning("%s could not read the metrics: %s%s", client_address[0], sys.exc_info()[1], why)


@contextmanager
def metrics_endpoint(listen: str, registry: CollectorRegistry, tls: Tls | None) -> Iterator[str]:
    """Serves /metrics on host:port from a daemon thread; yields the address with its real port.

    Args:
        tls: with a certificate to show callers speak TLS, and show one themselves where the process asks for it.
            New connections go by the certificates of now.

    Raises:
        OSError: the address cannot be bound.
    """
    host, _, port = listen.rpartition(":")
    try:
        server = _Server(host.strip("[]") or "0.0.0.0", int(port), tls)
    except (OSError, ValueError) as error:
        raise OSError(
            f"cannot serve metrics on '{listen}' (HEADRACE_METRICS takes a free host:port): {error}"
        ) from error
    server.set_app(make_wsgi_app(registry))
    thread = threading.Thread(target=partial(server.serve_forever, 0.1), name="metrics", daemon=True)
    thread.start()
    try:
        yield f"{host}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(END_SECONDS)
