"""Rotel, an OpenTelemetry collector made by others: takes OTLP, and hands on what it understood."""

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import rotel

from headrace.cli.ports import free_port
from tests.support.stack import wait_until


@contextmanager
def rotel_collector(folder: Path, forward_to: str) -> Iterator[str]:
    """A running one that sends on to the OTLP/gRPC endpoint `forward_to`; yields its own endpoint."""
    takes, unused = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    command = [
        str(Path(rotel.__file__).with_name("rotel-agent")),
        "start",
        *("--otlp-grpc-endpoint", takes, "--otlp-http-endpoint", unused, "--batch-timeout", "100ms"),
        *("--exporter", "otlp", "--otlp-exporter-endpoint", forward_to),
        *("--pid-file", str(folder / "rotel.pid"), "--log-file", str(folder / "rotel-agent.log")),
    ]
    with (folder / "rotel.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            wait_until(lambda: _answers(takes) or process.poll() is not None, "Rotel")
            assert process.poll() is None, (folder / "rotel.log").read_text()
            yield f"http://{takes}"
        finally:
            process.terminate()
            process.wait(30)


def _answers(address: str) -> bool:
    host, port = address.split(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0
