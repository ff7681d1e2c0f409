"""Runs the echo application as a real process on one of the hosts."""

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc

from tests.integration.hosts_echo import PACKAGE

MAX_BYTES = 48 * 1024 * 1024
OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


class HostProcess:
    """A host that is up.

    Attributes:
        address: host:port of gRPC.
        said: the file that holds its stderr.
    """

    def __init__(self, process: "subprocess.Popen[str]", address: str, http: str, said: Path) -> None:
        self.process = process
        self.address = address
        self.http = http
        self.said = said
        self._channel = grpc.insecure_channel(address, options=OPTIONS)

    def unary(self, name: str, body: bytes = b"", timeout: float | None = 20.0, **options: Any) -> bytes:
        """One call."""
        answer: bytes = self.method(name)(body, timeout=timeout, **options)
        return answer

    def method(self, name: str) -> Any:
        """A unary method over bytes."""
        return self._channel.unary_unary(path(name))

    def stream(self, name: str) -> Any:
        """A streaming method over bytes."""
        return self._channel.stream_stream(path(name))

    @property
    def channel(self) -> grpc.Channel:
        """The channel of all calls."""
        return self._channel

    def state(self) -> dict[str, int]:
        """What the handlers counted."""
        counted: dict[str, int] = json.loads(self.unary("State"))
        return counted

    def get(self, target: str) -> dict[str, str]:
        """An HTTP GET of JSON."""
        with urllib.request.urlopen(f"http://{self.http}{target}", timeout=20) as response:
            answer: dict[str, str] = json.load(response)
            return answer

    def children(self) -> list[int]:
        """Processes that it started."""
        pid = self.process.pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._channel.close()
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(60)
        assert self.process.stdout is not None
        self.process.stdout.close()


def path(name: str) -> str:
    """A method of the echo; a full path stays as it is."""
    return name if name.startswith("/") else f"{PACKAGE}/{name}"


def start(front: str, folder: Path, **environment: str) -> "subprocess.Popen[str]":
    """Starts the process; its stderr goes to `folder`/said."""
    defaults = {"FRONT": front, "LISTEN": "127.0.0.1:0", "HTTP_LISTEN": "127.0.0.1:0", "MAX_REQUEST_BYTES": MAX_BYTES}
    variables = {f"HEADRACE_{key}": str(value) for key, value in {**defaults, **environment}.items()}
    with (folder / "said").open("w") as said:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.integration.hosts_echo"],
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            env={**os.environ, **variables},
        )


@contextmanager
def running(front: str, folder: Path, **environment: str) -> Iterator[HostProcess]:
    """A host for the block."""
    process = start(front, folder, **environment)
    assert process.stdout is not None
    words = process.stdout.readline().split()
    assert words[:2] == ["ready", "echo"], (words, (folder / "said").read_text())
    with HostProcess(process, words[2], words[3], folder / "said") as host:
        yield host


def until(condition: Callable[[], bool], what: str, seconds: float = 20.0) -> None:
    """Returns once the condition holds; fails the test after a bound."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s for {what}"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    """Whether the process runs; one that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
