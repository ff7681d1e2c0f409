"""A single replica for the tests, as `headrace serve` runs it, and nginx in front of one."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from headrace.cli.ports import free_port
from tests.support.stack import wait_until
from tests.support.stores import accepts

ROOT = Path(__file__).resolve().parents[2]


def serve_command(model: str, *options: str) -> list[str]:
    """`headrace serve` on free ports."""
    ports = ["--port", "0", "--http-port", "0"]
    return [sys.executable, "-m", "headrace.cli.main", "serve", model, *ports, *options]


@dataclass(frozen=True, slots=True)
class Replica:
    """One that serves.

    Attributes:
        grpc, http: its addresses.
    """

    process: "subprocess.Popen[str]"
    grpc: str
    http: str
    log: Path

    def latency_lines(self) -> list[str]:
        """One for each request that it ran."""
        return [line for line in self.log.read_text().splitlines() if "total_ms=" in line]


@contextmanager
def replica(model: str, folder: Path, *options: str) -> Iterator[Replica]:
    """`headrace serve` until the block ends; it must then drain and exit with 0."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "serve.log"
    with (
        log.open("w") as said,
        subprocess.Popen(
            serve_command(model, *options),
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            env={**os.environ, "HEADRACE_CACHE": str(folder / "cache")},
        ) as process,
    ):
        assert process.stdout is not None
        words = process.stdout.readline().split()
        assert words[:2] == ["ready", "single"], log.read_text()
        try:
            yield Replica(process, words[2], words[3], log)
        finally:
            process.terminate()
            process.wait(60)
    assert process.returncode == 0, log.read_text()


@contextmanager
def nginx(behind_grpc: Sequence[str], behind_http: Sequence[str], folder: Path) -> Iterator[tuple[str, str]]:
    """Debian's nginx with deploy/nginx/headrace.conf until the block ends; yields its gRPC and HTTP addresses.

    Args:
        behind_grpc, behind_http: who answers, one `server` line for each.
    """
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    assert program, "nginx is missing: apt-get install nginx"
    folder.mkdir(parents=True, exist_ok=True)
    grpc, http = free_port(), free_port()
    config = (ROOT / "deploy" / "nginx" / "headrace.conf").read_text()
    line = "server 127.0.0.1:8001 fail_timeout=2s;"
    for ours, theirs in ((f"{line}  #", behind_http), (line, behind_grpc)):
        assert ours in config
        lines = "\n".join(line.replace("127.0.0.1:8001", address) for address in theirs)
        config = config.replace(ours, lines + ours.removeprefix(line))
    config = config.replace("listen 8080", f"listen 127.0.0.1:{grpc}").replace(
        "listen 8081", f"listen 127.0.0.1:{http}"
    )
    (folder / "headrace.conf").write_text(config)
    temporary = "\n".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = "user root;" if os.getuid() == 0 else ""  # else its workers could not write below the tests' folder
    (folder / "nginx.conf").write_text(
        f"{user} pid {folder}/pid; daemon off; error_log {folder}/error.log; worker_processes 1;\n"
        f"events {{ }}\nhttp {{ access_log off; {temporary}\ninclude {folder}/headrace.conf; }}\n"
    )
    with subprocess.Popen([program, "-p", str(folder), "-c", str(folder / "nginx.conf")]) as process:
        try:
            wait_until(lambda: (accepts(grpc) and accepts(http)) or process.poll() is not None, "nginx to listen")
            assert process.poll() is None, (folder / "error.log").read_text()
            yield f"127.0.0.1:{grpc}", f"127.0.0.1:{http}"
        finally:
            process.terminate()
