"""Between the launcher and the application inside Envoy: a unix socket. The launcher says "drain";
its end is the end."""

import asyncio
import os
import signal

from services.gateway.hosts.serving import Gate

SOCKET_VARIABLE = "HEADRACE_CONTROL_SOCKET"
PATIENCE_VARIABLE = "HEADRACE_DRAIN_SECONDS"


async def serve_control(gate: Gate) -> None:
    """The application's side: says "ready", drains when told to, and dies with the launcher."""
    path = os.environ.get(SOCKET_VARIABLE)
    if path is None:
        return
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(b"ready\n")
    while line := await reader.readline():
        if line == b"drain\n":
            await gate.drain(float(os.environ.get(PATIENCE_VARIABLE, "30")))
            writer.write(b"drained\n")
            await writer.drain()
    # The launcher is gone, killed perhaps: nobody will stop this process any more.
    os.kill(os.getpid(), signal.SIGKILL)


class Control:
    """The launcher's side."""

    def __init__(self) -> None:
        self.ready = asyncio.Event()
        self.drained = asyncio.Event()
        self._writer: asyncio.StreamWriter | None = None

    async def listen(self, path: str) -> asyncio.Server:
        """Waits for the application at a socket path."""
        return await asyncio.start_unix_server(self._connected, path)

    async def drain(self) -> None:
        """Tells the application to drain."""
        if self._writer is not None:
            self._writer.write(b"drain\n")
            await self._writer.drain()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        while line := await reader.readline():
            if line == b"ready\n":
                self.ready.set()
            elif line == b"drained\n":
                self.drained.set()
