"""Workers as pods of a Kubernetes Deployment, by its scale subresource. Plain HTTP: no SDK is needed for five calls.

The ReplicaSet picks who leaves: pods that are not ready first, then those of the lowest deletion cost. So the chosen
ones are given a low cost before the number is lowered. The service account needs these rights: list and patch pods, get
and patch deployments/scale.
"""

import asyncio
import json
import os
import ssl
import time
import urllib.request
from collections.abc import Collection
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote, urlencode

from services.autoscaler.orchestrators.port import Instance
from services.common.errors import Conflict, FailedPrecondition, HeadraceError, NotFound, PermissionDenied, Unavailable

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
COST = "controller.kubernetes.io/pod-deletion-cost"
CALL_SECONDS = 10.0
_MERGE = "application/merge-patch+json"


class Deployment:
    """Implements Orchestrator. What crashes, the kubelet and the ReplicaSet start again.

    Args:
        server: https://host:port of the API server.
        token_path: the service account's token; read anew for each call, since it is rotated.
    """

    kind = "kubernetes"

    def __init__(
        self, server: str, namespace: str, name: str, *, token_path: Path | None = None, ca_path: Path | None = None
    ) -> None:
        self._server = server
        self._namespace = f"namespaces/{quote(namespace)}"
        self._name = name
        self._token_path = token_path
        self._context = ssl.create_default_context(cafile=ca_path) if server.startswith("https") else None

    @classmethod
    def in_cluster(cls, namespace: str, name: str) -> "Deployment":
        """As the pod that this process runs in may. Raises FailedPrecondition."""
        host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
        if not host:
            raise FailedPrecondition(
                "not in a pod: KUBERNETES_SERVICE_HOST is not set; run the autoscaler in the cluster"
            )
        server = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
        return cls(server, namespace, name, token_path=ACCOUNT / "token", ca_path=ACCOUNT / "ca.crt")

    async def instances(self) -> list[Instance]:
        """The pods that are there, and a nameless one for each that is still to be made."""
        scale, pods = await self._scale(), await self._pods()
        now = time.time()
        found = [
            Instance(
                pod["metadata"]["name"],
                frozenset({pod["metadata"]["name"]}),
                max(0.0, now - _time(pod["metadata"]["creationTimestamp"])),
                "deletionTimestamp" in pod["metadata"],
            )
            for pod in pods
            if pod.get("status", {}).get("phase") not in {"Succeeded", "Failed"}
        ]
        staying = sum(not instance.leaving for instance in found)
        to_come = max(0, scale["spec"].get("replicas", 0) - staying)
        return found + [Instance(f"to come {number}", frozenset(), 0.0) for number in range(1, to_come + 1)]

    async def add(self, count: int) -> None:
        """More replicas."""
        await self._set_replicas((await self._scale())["spec"].get("replicas", 0) + count)

    async def remove(self, ids: Collection[str]) -> None:
        """Fewer replicas, of which these are the cheapest to delete."""
        body = {"metadata": {"annotations": {COST: "-1000"}}}
        replicas = (await self._scale())["spec"].get("replicas", 0)
        for pod in (pod for pod in ids if not pod.startswith("to come ")):
            try:
                await self._call("PATCH", f"/api/v1/{self._namespace}/pods/{quote(pod)}", body)
            except NotFound:
                continue
        await self._set_replicas(max(0, replicas - len(ids)))

    async def close(self) -> None:
        """Nothing is kept open."""

    async def _scale(self) -> Any:
        return await self._call("GET", self._scale_path)

    async def _pods(self) -> Any:
        # What the Deployment selects; the scale subresource tells it as a string.
        selector = (await self._scale()).get("status", {}).get("selector", "")
        query = urlencode({"labelSelector": selector})
        return (await self._call("GET", f"/api/v1/{self._namespace}/pods?{query}"))["items"]

    async def _set_replicas(self, replicas: int) -> None:
        await self._call("PATCH", self._scale_path, {"spec": {"replicas": replicas}})

    @property
    def _scale_path(self) -> str:
        return f"/apis/apps/v1/{self._namespace}/deployments/{quote(self._name)}/scale"

    async def _call(self, method: str, path: str, body: Any = None) -> Any:
        return await asyncio.to_thread(self._request, method, path, body)

    def _request(self, method: str, path: str, body: Any) -> Any:
        headers = {"Accept": "application/json"}
        if self._token_path is not None:
            headers["Authorization"] = f"Bearer {self._token_path.read_text().strip()}"
        data = None if body is None else json.dumps(body).encode()
        if data is not None:
            headers["Content-Type"] = _MERGE
        request = urllib.request.Request(self._server + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=CALL_SECONDS, context=self._context) as response:
                return json.load(response)
        except HTTPError as error:
            with error:
                raise _translated(error, method, path) from error
        except (OSError, ValueError) as error:
            raise Unavailable(f"the Kubernetes API at {self._server} does not answer: {error}") from error


def _translated(error: HTTPError, method: str, path: str) -> HeadraceError:
    what = f"Kubernetes: {method} {path}: {error.code} {error.reason}"
    if error.code in {401, 403}:
        return PermissionDenied(f"{what}; the service account may list and patch pods, get and patch deployments/scale")
    if error.code == 404:
        return NotFound(what)
    return Conflict(what) if error.code == 409 else Unavailable(what)


def _time(said: str) -> float:
    return datetime.fromisoformat(said.replace("Z", "+00:00")).timestamp()
