"""A service on a real Docker engine for tests, as Compose would have made it, from an image that needs no registry."""

import io
import os
import secrets
import shutil
import socket
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import docker
from docker.errors import DockerException

IMAGE = "headrace-test-sleeper:latest"


def engine() -> Any:
    """A client, or None where no engine answers."""
    if not _listens(os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")):
        return None
    try:
        client = docker.from_env(timeout=60)
        client.ping()
    except DockerException:
        return None
    return client


def _listens(host: str) -> bool:
    """Asked before the SDK is: it leaves its socket open where an engine that is gone has left its own behind."""
    if not host.startswith("unix://"):
        return True
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(host.removeprefix("unix://")) == 0


@contextmanager
def compose_service(client: Any) -> Iterator[str]:
    """The name of a project with one created, not started container of its service `worker`."""
    if not client.images.list(IMAGE):
        client.api.import_image_from_data(_root(), repository=IMAGE.partition(":")[0], tag="latest")
    project = f"headracetest{secrets.token_hex(4)}"
    labels = {
        "com.docker.compose.project": project,
        "com.docker.compose.service": "worker",
        "com.docker.compose.container-number": "1",
        "com.docker.compose.oneoff": "False",
    }
    client.containers.create(
        IMAGE,
        ["/busybox", "sh", "-c", _SLEEP],
        name=f"{project}-worker-1",
        labels=labels,
        environment={"MARK": project},
    )
    try:
        yield project
    finally:
        for container in client.containers.list(all=True, filters={"label": f"com.docker.compose.project={project}"}):
            container.remove(force=True)


# Ends on SIGTERM, which a first process in a container ignores unless it says otherwise.
_SLEEP = "trap 'exit 0' TERM; while true; do /busybox sleep 0.1; done"


def _root() -> bytes:
    """A root file system of one static program."""
    busybox = shutil.which("busybox")
    assert busybox is not None, "the tests' image is made of busybox; apt-get install busybox-static"
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        content = Path(busybox).read_bytes()
        entry = tarfile.TarInfo("busybox")
        entry.size, entry.mode = len(content), 0o755
        archive.addfile(entry, io.BytesIO(content))
    return made.getvalue()
