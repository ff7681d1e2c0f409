"""The console's page and its bundle: `node console/build.mjs` makes static/ of what is in console/ at the root."""

import hashlib
from pathlib import Path

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from services.common.errors import NotFound
from services.gateway.console.live import Live
from services.gateway.door import tenant_in
from services.gateway.openai.leaving import EventStream

STATIC = Path(__file__).parent / "static"
PAGE = "index.html"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
# Nothing from anywhere else, nothing inline, in nobody's frame.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-cache",
}


def console_router(live: Live) -> APIRouter:
    """`/console`, its files below it, its live data at `/console/live`, and the way there from `/`."""
    router = APIRouter(include_in_schema=False)
    files = {path.name: path.read_bytes() for path in STATIC.iterdir()}

    @router.get("/")
    async def root() -> Response:
        return RedirectResponse("console")  # relative: a proxy may have put us below a path

    @router.get("/console/live")
    async def feed(http: Request) -> Response:
        if (tenant := tenant_in(http.scope)) is not None:
            tenant.check_write()  # it shows what all tenants do
        return EventStream(live.events())

    @router.get("/console")
    @router.get("/console/{name}")
    async def file(http: Request, name: str = PAGE) -> Response:
        if name not in files:
            raise NotFound(f"the console has no '{name[:128]}'")
        body = files[name]
        tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        headers = {**_HEADERS, "etag": tag}
        if http.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(body, headers=headers, media_type=_TYPES[Path(name).suffix])

    return router
