"""Workers as containers of a Docker engine: replicas of a Compose service, as `docker compose ps` shows them.

New replicas are copies of one that is there, running or stopped: Compose has made it, with its image, secrets, networks
and volumes. So one container of the service must exist; the last one is stopped, not removed, when nobody is needed.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Collection
from datetime import datetime
from typing import Any, TypeVar

import docker
from docker.errors import APIError, DockerException, NotFound

from services.autoscaler.orchestrators.port import Instance
from services.common.errors import FailedPrecondition, Unavailable

PROJECT, SERVICE, NUMBER = (
    "com.docker.compose.project",
    "com.docker.compose.service",
    "com.docker.compose.container-number",
)
# Longer than a worker's drain, after which the engine kills it.
STOP_SECONDS = 45

# Networks of the engine's own, which know no names.
_WITHOUT_NAMES = {"bridge", "host", "none"}

T = TypeVar("T")


class DockerEngine:
    """Implements Orchestrator for one service of one Compose project. Containers that crashed are removed."""

    kind = "docker"

    def __init__(self, client: Any, project: str, service: str) -> None:
        self._client = client
        self._project = project
        self._service = service
        self._leaving: dict[str, asyncio.Task[None]] = {}
        self._changing = threading.Lock()

    @classmethod
    async def connect(cls, project: str, service: str) -> "DockerEngine":
        """To the engine that DOCKER_HOST names, or this machine's. Raises Unavailable."""
        try:
            client = await asyncio.to_thread(docker.from_env, timeout=STOP_SECONDS + 15)
            return cls(client, project, service)
        except DockerException as error:
            raise Unavailable(f"no Docker engine: {error}; set DOCKER_HOST, or mount /var/run/docker.sock") from error

    async def instances(self) -> list[Instance]:
        """Running containers of the service."""
        found = await self._call(self._containers)
        now = time.time()
        alive = [container for container in found if container.status in {"running", "restarting"}]
        return [
            Instance(
                container.name,
                frozenset({container.name, container.attrs["Config"]["Hostname"]}),
                max(0.0, now - _started(container)),
                container.name in self._leaving,
            )
            for container in alive
        ]

    async def add(self, count: int) -> None:
        """Starts one that is stopped, and makes the others.

        Raises:
            FailedPrecondition: the service has no container to copy.
            Unavailable: the engine refuses.
        """
        leaving = set(self._leaving)
        await self._call(lambda: self._add(count, leaving))

    async def remove(self, ids: Collection[str]) -> None:
        """SIGTERM in the background, then removed."""
        for name in set(ids) - self._leaving.keys():
            task = self._leaving[name] = asyncio.create_task(self._end(name), name=f"end of {name}")
            task.add_done_callback(lambda _, name=name: self._leaving.pop(name, None))  # type: ignore[misc]

    async def close(self) -> None:
        """Lets those that leave do so, then disconnects."""
        await asyncio.gather(*self._leaving.values(), return_exceptions=True)
        await asyncio.to_thread(self._client.close)

    async def _end(self, name: str) -> None:
        await self._call(lambda: self._stop(name))

    def _stop(self, name: str) -> None:
        try:
            container = self._client.containers.get(name)
            container.stop(timeout=STOP_SECONDS)
            with self._changing:  # two that both see another one left must not both be removed
                if len(self._containers()) > 1:
                    container.remove()
        except NotFound:
            return

    def _add(self, count: int, leaving: set[str]) -> None:
        with self._changing:
            started = self._start_stopped(count, leaving)
            template = self._containers()[0]
        for _ in range(count - started):
            self._copy(template)

    def _start_stopped(self, count: int, leaving: set[str]) -> int:
        """Starts those that are stopped, and removes what is stopped beyond that; returns how many started."""
        containers = self._containers()
        if not containers:
            raise FailedPrecondition(
                f"project '{self._project}' has no container of service '{self._service}' to copy; run `docker compose"
                f" up --no-start {self._service}` first"
            )
        stopped = [
            container
            for container in containers
            if container.status in {"exited", "created"} and container.name not in leaving
        ]
        for container in stopped[:count]:
            container.start()
        for container in stopped[count:]:
            container.remove()
        return min(count, len(stopped))

    def _copy(self, template: Any) -> None:
        """A container like this one, under the next free number."""
        taken = {int(container.labels.get(NUMBER, 0)) for container in self._containers()}
        number = next(number for number in range(1, len(taken) + 2) if number not in taken)
        name = f"{self._project}-{self._service}-{number}"
        attributes = template.attrs
        config = {key: value for key, value in attributes["Config"].items() if key not in {"Hostname", "Domainname"}}
        config["Labels"] = {**config["Labels"], NUMBER: str(number)}
        networks = attributes["NetworkSettings"]["Networks"].keys() - _WITHOUT_NAMES
        endpoints = {network: {"Aliases": [self._service, name]} for network in networks}
        body = {**config, "HostConfig": attributes["HostConfig"], "NetworkingConfig": {"EndpointsConfig": endpoints}}
        made = self._client.api.create_container_from_config(body, name)
        self._client.api.start(made["Id"])

    def _containers(self) -> list[Any]:
        labels = [f"{PROJECT}={self._project}", f"{SERVICE}={self._service}", "com.docker.compose.oneoff=False"]
        found: list[Any] = self._client.containers.list(all=True, filters={"label": labels}, ignore_removed=True)
        return found

    async def _call(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.to_thread(work)
        except (APIError, DockerException, OSError) as error:
            raise Unavailable(f"the Docker engine: {error}") from error


def _started(container: Any) -> float:
    """Seconds since the epoch; what was never started, was made."""
    state, made = container.attrs["State"]["StartedAt"], container.attrs["Created"]
    said = made if state.startswith("0001") else state
    return datetime.fromisoformat(said.partition(".")[0].rstrip("Z") + "+00:00").timestamp()
