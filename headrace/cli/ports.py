"""Ports for processes that others must know before they listen."""

import secrets
import socket
from contextlib import closing, suppress

# Below the range from which Linux takes the ports of outgoing connections (32768 up): there a port that was free when
# it was looked at may be in use by a stranger's connection when its process comes to bind it.
LOWEST, HIGHEST = 15_000, 32_000


def free_port(host: str = "127.0.0.1") -> int:
    """One that nobody listens on now, at random, so that two who look at the same time find different ones."""
    while True:
        port = LOWEST + secrets.randbelow(HIGHEST - LOWEST)
        with closing(socket.socket()) as probe, suppress(OSError):
            probe.bind((host, port))
            return port
