"""A Hugging Face hub of one folder, as far as downloading goes: the same addresses and headers."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def running_hub(folder: Path, repository: str) -> Iterator[tuple[str, list[str]]]:
    """Serves the folder as `repository` at revision main; gives the endpoint and the names of what was fetched."""
    fetched: list[str] = []
    names = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

        def _answer(self, *, body: bool) -> None:
            path = unquote(urlsplit(self.path).path)
            about = f"/api/models/{repository}"
            if path in {about, f"{about}/revision/main", f"{about}/revision/{COMMIT}"}:
                self._json({"id": repository, "sha": COMMIT, "siblings": [{"rfilename": name} for name in names]})
            elif path in {f"{about}/tree/main", f"{about}/tree/{COMMIT}"}:
                self._json([_entry(folder, name) for name in names])
            elif path.startswith(f"/{repository}/resolve/") and (name := path.split("/", 5)[5]) in names:
                self._file(folder / name, body=body)
            else:
                self.send_response(404)
                self.send_header("X-Error-Code", "RepoNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()

        def _file(self, path: Path, *, body: bool) -> None:
            content = path.read_bytes()
            self.send_response(200)
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{_digest(path)}"')
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if body:
                fetched.append(path.name)
                self.wfile.write(content)

        def _json(self, value: object) -> None:
            content = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", fetched
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _entry(folder: Path, name: str) -> dict[str, object]:
    return {"type": "file", "path": name, "size": (folder / name).stat().st_size, "oid": _digest(folder / name)}


def _digest(path: Path) -> str:
    return hashlib.sha1(path.read_bytes(), usedforsecurity=False).hexdigest()
