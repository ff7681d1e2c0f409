"""A Kubernetes API server for tests: the few calls that a Deployment's scale needs, over real HTTP, with a controller
that makes and deletes pods as the ReplicaSet controller does."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

COST = "controller.kubernetes.io/pod-deletion-cost"
SELECTOR = "app=worker"


class Cluster:
    """One Deployment `workers` in the namespace `models`.

    Attributes:
        token: what callers must show.
        deleted: pods that left, in order.
    """

    def __init__(self) -> None:
        self.token = "secret-token"
        self.replicas = 0
        self.pods: dict[str, dict[str, Any]] = {}
        self.deleted: list[str] = []
        self._made = 0
        self._lock = threading.Lock()

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        """Status and body."""
        url = urlsplit(path)
        with self._lock:
            if url.path == "/apis/apps/v1/namespaces/models/deployments/workers/scale":
                if method == "PATCH":
                    self.replicas = body["spec"]["replicas"]
                    self._reconcile()
                return 200, {"spec": {"replicas": self.replicas}, "status": {"selector": SELECTOR}}
            if url.path == "/api/v1/namespaces/models/pods" and parse_qs(url.query)["labelSelector"] == [SELECTOR]:
                return 200, {"items": list(self.pods.values())}
            if method == "PATCH" and (pod := self.pods.get(url.path.removeprefix("/api/v1/namespaces/models/pods/"))):
                pod["metadata"]["annotations"] |= body["metadata"]["annotations"]
                return 200, pod
        return 404, {"kind": "Status", "message": f"no {path}"}

    def _reconcile(self) -> None:
        while len(self.pods) < self.replicas:
            self._made += 1
            name = f"workers-{self._made:03d}"
            made = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            self.pods[name] = {
                "metadata": {"name": name, "creationTimestamp": made, "annotations": {}},
                "status": {"phase": "Running"},
            }
        while len(self.pods) > self.replicas:
            costs = {name: int(pod["metadata"]["annotations"].get(COST, 0)) for name, pod in self.pods.items()}
            # Among equals the newest goes first.
            name = min(sorted(self.pods, reverse=True), key=costs.__getitem__)
            del self.pods[name]
            self.deleted.append(name)


@contextmanager
def kubernetes_api() -> Iterator[tuple[str, Cluster]]:
    """http://host:port and what is behind it."""
    cluster = Cluster()

    class Handler(BaseHTTPRequestHandler):
        def _any(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            body = json.loads(self.rfile.read(length)) if length else None
            if self.headers.get("Authorization") != f"Bearer {cluster.token}":
                status, said = 403, {"kind": "Status", "message": "forbidden"}
            elif self.command == "PATCH" and self.headers.get("Content-Type") != "application/merge-patch+json":
                status, said = 415, {"kind": "Status", "message": "unsupported media type"}
            else:
                status, said = cluster.answer(self.command, self.path, body)
            content = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_PATCH = _any  # noqa: N815  # the names are http.server's

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", cluster
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
