"""A real Prometheus that reads a running stack."""

import json
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from headrace.cli.ports import free_port
from tests.support.certificates import Certificates
from tests.support.stack import wait_until


class Prometheus:
    """Asks it."""

    def __init__(self, address: str) -> None:
        self._address = address

    def query(self, expression: str) -> list[Any]:
        """The samples of an instant query. Raises HTTPError where Prometheus refuses it."""
        asked = f"http://{self._address}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
        with urllib.request.urlopen(asked, timeout=10) as response:
            samples: list[Any] = json.load(response)["data"]["result"]
        return samples

    def ready(self) -> bool:
        """Whether it answers."""
        try:
            with urllib.request.urlopen(f"http://{self._address}/-/ready", timeout=2) as response:
                return bool(response.status == 200)
        except OSError:
            return False


@contextmanager
def prometheus(
    folder: Path, jobs: Mapping[str, list[str]], certificates: Certificates | None = None
) -> Iterator[Prometheus]:
    """Reads every address of every job each second.

    Args:
        certificates: to read by mutual TLS with.
    """
    program = shutil.which("prometheus")
    assert program, "no prometheus here: sh tools/test_services.sh installs it"
    how: dict[str, Any] = {}
    if certificates is not None:
        files = {"ca_file": certificates.ca_file, "cert_file": certificates.cert, "key_file": certificates.key}
        how = {"scheme": "https", "tls_config": {name: str(path) for name, path in files.items()}}
    scrapes = [{"job_name": job, "static_configs": [{"targets": targets}], **how} for job, targets in jobs.items()]
    config = folder / "prometheus.yml"
    config.write_text(yaml.safe_dump({"global": {"scrape_interval": "1s"}, "scrape_configs": scrapes}))
    address = f"127.0.0.1:{free_port()}"
    command = [program, f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}"]
    with (folder / "prometheus.log").open("w") as log:
        process = subprocess.Popen([*command, f"--web.listen-address={address}"], stderr=log, stdout=log)
        try:
            asked = Prometheus(address)
            wait_until(lambda: asked.ready() or process.poll() is not None, "Prometheus")
            assert process.poll() is None, (folder / "prometheus.log").read_text()
            yield asked
        finally:
            process.terminate()
            process.wait(30)
