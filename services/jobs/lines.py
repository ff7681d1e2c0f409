"""A job's lines: what callers send, and what they get back. Pure.

Both are OpenAI's batch format (https://platform.openai.com/docs/api-reference/batch): requests are objects of
`custom_id`, `method`, `url` and `body`; results are objects of `id`, `custom_id`, `response` and `error`. The urls are
the gateway's own, so one format holds text requests and tensor requests alike.
"""

import json
import re
from dataclasses import dataclass
from typing import Any

from services.common.errors import InvalidArgument

ENDPOINTS = re.compile(
    r"/v1/((chat/)?completions|embeddings)|/v2/models/[\w.~:-]+(/versions/[\w.~:-]+)?/infer", re.ASCII
)
_TENSORS = re.compile(r"/v2/models/(?P<model>[^/]+)(/versions/(?P<version>[^/]+))?/")
EXPECTED = "/v1/completions, /v1/chat/completions, /v1/embeddings or /v2/models/NAME/infer"
MOST_ID_CHARACTERS = 256


@dataclass(frozen=True, slots=True)
class Request:
    """One request of a job.

    Attributes:
        body: its JSON object, as the endpoint takes it.
    """

    custom_id: str
    url: str
    body: dict[str, Any]

    @property
    def model(self) -> str:
        """The model that it asks for, NAME or NAME:VERSION; empty: it names none."""
        if (named := _TENSORS.match(self.url)) is not None:
            return named["model"] + (f":{named['version']}" if named["version"] else "")
        model = self.body.get("model")
        return model if isinstance(model, str) else ""

    def line(self) -> bytes:
        """As it is kept."""
        return _json({"custom_id": self.custom_id, "url": self.url, "body": self.body})

    @classmethod
    def kept(cls, line: bytes) -> "Request":
        """The way back."""
        return cls(**json.loads(line))


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a request: an answer of the gateway with its HTTP status, or an error of the job's own.

    Attributes:
        status: 0: it was not run; `error` says why.
        error: (code, message).
    """

    status: int
    body: Any = None
    error: tuple[str, str] | None = None

    @property
    def failed(self) -> bool:
        """It goes into the error file."""
        return not 200 <= self.status < 300

    def line(self, result_id: str, custom_id: str) -> bytes:
        """As callers get it."""
        response = None
        if self.status:
            response = {"status_code": self.status, "request_id": result_id, "body": self.body}
        error = None if self.error is None else {"code": self.error[0], "message": self.error[1]}
        return _json({"id": result_id, "custom_id": custom_id, "response": response, "error": error})


def check_endpoint(endpoint: str) -> None:
    """Raises InvalidArgument."""
    if not ENDPOINTS.fullmatch(endpoint):
        raise InvalidArgument(f"endpoint {endpoint[:200]!r} takes no jobs; expected {EXPECTED}")


def read_line(line: bytes, number: int, endpoint: str) -> Request:
    """A caller's line, the `number`th.

    Args:
        endpoint: where bodies go that come alone; empty: every line must name its url.

    Raises:
        InvalidArgument: it is neither a request in OpenAI's form nor a body.
    """
    try:
        return _request(json.loads(line), number, endpoint)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"line {number} is not JSON: {error}") from error
    except InvalidArgument as error:
        raise InvalidArgument(f"line {number}: {error}") from error


def _request(said: Any, number: int, endpoint: str) -> Request:
    if not isinstance(said, dict):
        raise InvalidArgument("expected a JSON object")
    if "url" not in said and "body" not in said and endpoint:
        return Request(_custom_id(said.get("id") or f"request-{number}"), endpoint, _body(said))
    missing = [key for key in ("custom_id", "method", "url", "body") if key not in said]
    if missing:
        hint = "" if endpoint else "; bodies alone need an endpoint"
        raise InvalidArgument(f"'{missing[0]}' is missing; expected custom_id, method, url and body{hint}")
    if said["method"] != "POST":
        raise InvalidArgument(f"method is {said['method']!r}; expected 'POST'")
    url = said["url"]
    if not isinstance(url, str) or not ENDPOINTS.fullmatch(url):
        raise InvalidArgument(f"url {str(url)[:200]!r} takes no jobs; expected {EXPECTED}")
    if endpoint and url != endpoint:
        raise InvalidArgument(f"url {url!r} is not the job's endpoint {endpoint!r}; leave the endpoint out to mix them")
    return Request(_custom_id(said["custom_id"]), url, _body(said["body"]))


def _custom_id(value: Any) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= MOST_ID_CHARACTERS:
        raise InvalidArgument(
            f"custom_id is {str(value)[:80]!r}; expected a string of 1 to {MOST_ID_CHARACTERS} characters"
        )
    return value


def _body(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidArgument("body is no JSON object")
    if value.get("stream"):
        raise InvalidArgument("stream is true; a job's results are whole, leave stream out")
    return value


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
