"""Addresses to listen on: "host:port", "[v6]:port"; port 0 takes a free one."""

import socket

from services.common.errors import FailedPrecondition, InvalidArgument


def split(listen: str) -> tuple[str, int]:
    """Host and port. Raises InvalidArgument."""
    host, colon, port = listen.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise InvalidArgument(f"'{listen}' is no address to listen on; expected host:port, as in 127.0.0.1:8001")
    return host.removeprefix("[").removesuffix("]"), int(port)


def reserve(listen: str, *, shared: bool = False) -> socket.socket:
    """A bound socket that does not listen: nobody else gets its port while it is open.

    Args:
        shared: whoever also asks for SO_REUSEPORT may bind the port beside it.

    Raises:
        FailedPrecondition: the address is in use or is not this machine's.
        InvalidArgument: it is no address.
    """
    host, port = split(listen)
    held: socket.socket | None = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        held = socket.socket(family, kind, protocol)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind(address)
    except OSError as error:
        if held is not None:
            held.close()
        raise FailedPrecondition(f"cannot listen on {listen}: {error}; choose another address or port") from error
    return held


def with_port_of(listen: str, held: socket.socket) -> str:
    """The address with the port that the socket really has."""
    return f"{listen.rpartition(':')[0]}:{held.getsockname()[1]}"
