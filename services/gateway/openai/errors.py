"""Errors in OpenAI's form."""

import json
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from services.common.errors import (
    DeadlineExceeded,
    HeadraceError,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    QueueFull,
    Unauthenticated,
    Unimplemented,
    status_of,
)

PREFIX = "/v1/"
_TYPES: tuple[tuple[type[HeadraceError], str, str | None], ...] = (
    (NotFound, "invalid_request_error", "model_not_found"),
    (InvalidArgument, "invalid_request_error", None),
    (Unimplemented, "invalid_request_error", "unsupported"),
    (Unauthenticated, "authentication_error", "invalid_api_key"),
    (PermissionDenied, "permission_error", None),
    (QueueFull, "rate_limit_error", "rate_limit_exceeded"),
    (DeadlineExceeded, "timeout_error", "timeout"),
)


def body_of(error: HeadraceError) -> dict[str, Any]:
    """The JSON object that clients read."""
    for kind, name, code in _TYPES:
        if isinstance(error, kind):
            return _body(str(error), name, code)
    return _body(str(error), "server_error", None)


def response_of(error: HeadraceError) -> JSONResponse:
    """Status and body. What is not offered is the caller's mistake: 400, so that clients do not try again."""
    status = 400 if isinstance(error, Unimplemented) else status_of(error).http
    return JSONResponse(body_of(error), status, retry_header(error))


def retry_header(error: HeadraceError) -> dict[str, str] | None:
    """When to come again, in whole seconds, where that helps."""
    return {"retry-after": str(max(1, round(error.retry_after)))} if isinstance(error, QueueFull) else None


async def on_invalid(request: Request, error: RequestValidationError) -> JSONResponse:
    """A body that does not fit the schema; the other protocols get the same in their form."""
    problems = error.errors()
    first = problems[0] if problems else {"loc": (), "msg": "not valid"}
    place = ".".join(str(part) for part in first["loc"][1:])
    message = f"{place or 'the body'}: {first['msg']}"
    if request.url.path.startswith(PREFIX):
        return JSONResponse(_body(message, "invalid_request_error", None, place or None), 400)
    return JSONResponse({"error": message}, 400)


def _body(message: str, kind: str, code: str | None, param: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def event_of(error: HeadraceError) -> bytes:
    """An error in the middle of a stream, whose status has long been sent."""
    return b"data: " + json.dumps(body_of(error)).encode() + b"\n\n"
