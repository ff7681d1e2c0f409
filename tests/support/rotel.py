"""Rotel, an OpenTelemetry collector made by others: takes OTLP, hands on what it understood; nginx speaks its TLS."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import rotel

from headrace.cli.ports import free_port
from tests.support.certificates import Certificates
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


@contextmanager
def by_tls(folder: Path, endpoint: str, certificates: Certificates) -> Iterator[str]:
    """Debian's nginx before an OTLP/gRPC endpoint: mutual TLS, by the issuer of `certificates`; yields its endpoint."""
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    assert program, "nginx is missing: apt-get install nginx"
    takes = f"127.0.0.1:{free_port()}"
    user = "user root;" if os.getuid() == 0 else ""  # else its workers could not write below the tests' folder
    temporary = "\n".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    files = f"ssl_certificate {certificates.cert}; ssl_certificate_key {certificates.key};"
    (folder / "nginx.conf").write_text(
        f"{user} pid {folder}/pid; daemon off; error_log {folder}/error.log; worker_processes 1;\n"
        f"events {{ }}\nhttp {{ access_log off; {temporary}\nserver {{ listen {takes} ssl http2; {files}\n"
        f"ssl_client_certificate {certificates.ca_file}; ssl_verify_client on;\n"
        f"location / {{ grpc_pass {endpoint.replace('http:', 'grpc:')}; }} }} }}\n"
    )
    with subprocess.Popen([program, "-p", str(folder), "-c", str(folder / "nginx.conf")]) as process:
        try:
            wait_until(lambda: _answers(takes) or process.poll() is not None, "nginx to listen")
            assert process.poll() is None, (folder / "error.log").read_text()
            yield f"https://{takes}"
        finally:
            process.terminate()


def _answers(address: str) -> bool:
    host, port = address.split(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0
