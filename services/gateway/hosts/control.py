"""Between the launcher and the application inside Envoy: a unix socket.

The application says "ready", or "failed" and why; the launcher says "drain"; the socket's end is the end of both.
"""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NoReturn

from services.common.errors import HeadraceError, error_of, status_of
from services.gateway.hosts.serving import Gate

SOCKET_VARIABLE = "HEADRACE_CONTROL_SOCKET"
PATIENCE_VARIABLE = "HEADRACE_DRAIN_SECONDS"


class ControlledProcess:
    """The application's side, inside Envoy."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    @asynccontextmanager
    async def connected(cls) -> AsyncIterator["ControlledProcess"]:
        """Connects to the launcher that started this process."""
        reader, writer = await asyncio.open_unix_connection(os.environ[SOCKET_VARIABLE])
        try:
            yield cls(reader, writer)
        finally:
            writer.close()

    async def fail(self, error: Exception) -> NoReturn:
        """Tells why the application did not start and ends the process: Envoy would serve on without it."""
        text = str(error) if isinstance(error, HeadraceError) else f"{type(error).__name__}: {error}"
        await self._say("failed", status_of(error).grpc, text)
        os.kill(os.getpid(), signal.SIGKILL)
        raise error

    async def obey(self, gate: Gate) -> None:
        """Says "ready", drains when told to, and dies with the launcher."""
        await self._say("ready")
        while line := await self._reader.readline():
            if json.loads(line)[0] == "drain":
                await gate.drain(float(os.environ.get(PATIENCE_VARIABLE, "30")))
                await self._say("drained")
        # The launcher is gone, killed perhaps: nobody will stop this process any more.
        os.kill(os.getpid(), signal.SIGKILL)

    async def _say(self, *words: str | int) -> None:
        self._writer.write(json.dumps(words).encode() + b"\n")
        await self._writer.drain()


class Control:
    """The launcher's side.

    Attributes:
        failure: why the application did not start; None if it said nothing.
    """

    def __init__(self) -> None:
        self.ready = asyncio.Event()
        self.drained = asyncio.Event()
        self.ended = asyncio.Event()
        self.failure: HeadraceError | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def listen(self, path: str) -> asyncio.Server:
        """Waits for the application at a socket path."""
        return await asyncio.start_unix_server(self._connected, path)

    async def drain(self) -> None:
        """Tells the application to drain."""
        if self._writer is not None:
            self._writer.write(b'["drain"]\n')
            await self._writer.drain()

    def close(self) -> None:
        """Ends the connection."""
        if self._writer is not None:
            self._writer.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        while line := await reader.readline():
            match json.loads(line):
                case ["ready"]:
                    self.ready.set()
                case ["drained"]:
                    self.drained.set()
                case ["failed", code, why]:
                    self.failure = error_of(code, why)
        self.ended.set()
