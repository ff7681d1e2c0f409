"""A whole local stack for the tests: `headrace up` as a user runs it, on free ports."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

START_SECONDS = 60.0


class RunningStack:
    """A stack that is up, and ways to hurt it."""

    def __init__(self, data: Path, process: "subprocess.Popen[bytes]") -> None:
        self._data = data
        self.process = process

    def address(self, name: str) -> str:
        """host:port of a process."""
        return str(self._state()[name]["address"])

    def http(self) -> str:
        """host:port of the gateway's HTTP; its gRPC port too where Envoy is the front."""
        return str(self._state()["gateway"]["http"])

    def metrics(self, name: str) -> str:
        """host:port of a process's Prometheus page."""
        return str(self._state()[name]["metrics"])

    def pid(self, name: str) -> int:
        """The process's id now; it changes with each restart."""
        return int(self._state()[name]["pid"])

    def setting(self, name: str, setting: str) -> str:
        """HEADRACE_`setting` in the environment of a process."""
        variables = Path(f"/proc/{self.pid(name)}/environ").read_bytes().decode().split("\0")
        return dict(variable.split("=", 1) for variable in variables if variable)[f"HEADRACE_{setting}"]

    def signal(self, name: str, number: signal.Signals) -> None:
        """Sends a signal and, if the process ends by it, waits until the supervisor has it up again."""
        before = self.pid(name)
        os.kill(before, number)
        wait_until(lambda: self.pid(name) != before, f"{name} to be started again")

    def processes(self) -> list[str]:
        """The names of all processes."""
        return list(self._state())

    def pids(self) -> set[int]:
        """Every process of the stack, those inside others' names included: Envoy, for one."""
        return set(descendants(self.process.pid))

    def log(self, name: str) -> str:
        """What the process logged."""
        return (self._data / "logs" / f"{name}.log").read_text()

    def said(self) -> str:
        """What `headrace up` printed, on one line."""
        return " ".join((self._data / "up.log").read_text().split())

    def _state(self) -> dict[str, dict[str, str]]:
        state: dict[str, dict[str, str]] = json.loads((self._data / "stack.json").read_text())
        return state


@contextmanager
def running_stack(
    data: Path,
    *,
    workers: int | str = 1,
    gateways: int = 1,
    front: str = "auto",
    broker: str = "",
    store: str = "",
    environment: Mapping[str, str] | None = None,
) -> Iterator[RunningStack]:
    """Runs `headrace up` until the block ends, then expects it to drain and exit with 0.

    Args:
        workers: a number, or "FEWEST..MOST".
        broker, store: URLs; empty: the embedded broker, a folder below `data`.
        environment: variables beside this process's own, such as AWS_* for an S3 store.
    """
    command = [sys.executable, "-m", "headrace.cli.main", "up", "--data", str(data), "--workers", str(workers)]
    command += ["--gateways", str(gateways), "--front", front, "--broker", broker, "--store", store]
    for port in ("port", "metrics-port", "http-port", "registry-port", "broker-port", "autoscaler-port", "jobs-port"):
        command += [f"--{port}", "0"]
    data.mkdir(parents=True, exist_ok=True)
    said = data / "up.log"
    with said.open("w") as log:
        process = subprocess.Popen(command, stderr=log, env={**os.environ, **(environment or {})})
    try:
        wait_until(
            lambda: "ready;" in said.read_text() or process.poll() is not None, "the stack to start", START_SECONDS
        )
        assert process.poll() is None, f"the stack did not start:\n{said.read_text()}"
        yield RunningStack(data, process)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)
    assert process.returncode == 0, said.read_text()


def descendants(pid: int) -> list[int]:
    """Children, their children, and so on."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    children = [int(child) for task in tasks for child in task.read_text().split()]
    return children + [further for child in children for further in descendants(child)]


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 30.0) -> None:
    """Returns once the condition holds; fails the test after a bound."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s for {what}"
        time.sleep(0.02)
