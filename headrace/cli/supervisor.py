"""Child processes of `headrace up`: started in order, restarted when they crash, stopped in order."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

READY_SECONDS = 90.0
STOP_SECONDS = 45.0
# Asks Linux for SIGKILL when the supervisor dies, then becomes the module. In a process of its own, since Python code
# between fork and exec (preexec_fn) may crash beside gRPC's threads; without it no copy of this process is ever made.
_DIE_WITH_PARENT = """
import ctypes, os, signal, sys
parent = os.getppid()
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() != parent:
    sys.exit(1)
os.execv(sys.executable, [sys.executable, "-m", *sys.argv[1:]])
"""


class StartError(Exception):
    """A child did not come up; the message holds the end of its log."""


@dataclass(slots=True)
class Child:
    """One process.

    Attributes:
        module: run as `python -m module`.
        address, http: as its "ready" line said; `http` is empty where it serves none.
        restarts: how often it was started again after a crash.
    """

    name: str
    module: str
    environment: dict[str, str]
    log: Path
    address: str = ""
    http: str = ""
    restarts: int = 0
    process: asyncio.subprocess.Process | None = None
    stopping: bool = False
    task: asyncio.Task[None] | None = field(default=None, repr=False)
    printing: asyncio.Task[None] | None = field(default=None, repr=False)

    async def start(self) -> None:
        """Spawns it and waits for its "ready" line. Raises StartError."""
        log = self.log.open("ab")
        try:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-ISc",
                _DIE_WITH_PARENT,
                self.module,
                env={**os.environ, **self.environment},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                start_new_session=True,  # Ctrl-C is the supervisor's: it stops children in order
            )
        finally:
            log.close()
        assert self.process.stdout is not None
        try:
            line = (await asyncio.wait_for(self.process.stdout.readline(), READY_SECONDS)).decode().split()
        except TimeoutError:
            line = []
        if len(line) not in {3, 4} or line[0] != "ready":
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
            await self.process.wait()
            raise StartError(f"{self.name} did not start; the end of {self.log}:\n{_tail(self.log)}")
        self.address, self.http = line[2], "".join(line[3:])
        self.printing = asyncio.create_task(_copy(self.process.stdout, self.log), name=f"output of {self.name}")

    async def keep(self, on_crash: Callable[["Child", int], None], on_restart: Callable[[], None]) -> None:
        """Starts it again, with growing pauses, whenever it ends by itself."""
        pause = 0.2
        while not self.stopping:
            assert self.process is not None
            began = time.monotonic()
            code = await self.process.wait()
            if self._stopped_meanwhile():
                return
            self.restarts += 1
            on_crash(self, code)
            pause = 0.2 if time.monotonic() - began > 30 else min(pause * 2, 10.0)
            await asyncio.sleep(pause)
            with contextlib.suppress(StartError):
                await self.start()
                on_restart()

    def _stopped_meanwhile(self) -> bool:
        return self.stopping

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL for one that does not end."""
        self.stopping = True
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(self.process.wait(), STOP_SECONDS)
            except TimeoutError:
                self.process.kill()
                await self.process.wait()
        for task in (self.task, self.printing):
            if task is not None:
                task.cancel()


async def _copy(source: asyncio.StreamReader, log: Path) -> None:
    """What a child prints after its "ready" line goes to its log; a pipe that nobody reads would block it."""
    with log.open("ab", buffering=0) as file:
        while chunk := await source.read(65536):
            file.write(chunk)


def _tail(path: Path, lines: int = 15) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
