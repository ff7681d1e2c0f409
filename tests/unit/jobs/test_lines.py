"""A job's lines: what is taken, what is refused and how, and what comes back."""

import json
from typing import Any

import pytest

from services.common.errors import InvalidArgument
from services.jobs.job import Spec, Target
from services.jobs.lines import Request, Result, check_endpoint, read_line
from services.jobs.paging import page

INFER = "/v2/models/digits/infer"
CHAT: dict[str, Any] = {
    "custom_id": "a",
    "method": "POST",
    "url": "/v1/chat/completions",
    "body": {"model": "m", "messages": []},
}


def encoded(line: Any) -> bytes:
    return json.dumps(line).encode()


def test_openai_lines_bring_their_own_url() -> None:
    assert read_line(encoded(CHAT), 1, "") == Request("a", "/v1/chat/completions", CHAT["body"])
    assert read_line(encoded(CHAT), 1, "/v1/chat/completions").url == "/v1/chat/completions"


@pytest.mark.parametrize(
    ("url", "body", "target"),
    [
        (INFER, {}, Target("digits")),
        ("/v2/models/digits/versions/3/infer", {}, Target("digits", 3)),
        ("/v2/models/digits:canary/infer", {}, Target("digits")),
        ("/v1/embeddings", {"model": "words:2"}, Target("words", 2)),
        ("/v1/completions", {}, Target("")),
        ("/v1/completions", {"model": 7}, Target("")),
    ],
)
def test_a_request_names_its_model(url: str, body: dict[str, Any], target: Target) -> None:
    assert Target.named(Request("a", url, body).model) == target
    assert Target.named(str(target)) == target


@pytest.mark.parametrize(
    ("line", "custom_id"), [({"id": "seven", "inputs": []}, "seven"), ({"inputs": []}, "request-9")]
)
def test_bodies_alone_go_to_the_endpoint(line: dict[str, Any], custom_id: str) -> None:
    assert read_line(encoded(line), 9, INFER) == Request(custom_id, INFER, line)


@pytest.mark.parametrize(
    ("line", "endpoint", "message"),
    [
        (b"{", "", "line 7 is not JSON"),
        (b"\xff\xfe", "", "line 7 is not JSON"),
        (b"[" * 100_000, "", "line 7 is not JSON"),
        (b"[]", "", "line 7: expected a JSON object"),
        (encoded({"inputs": []}), "", "line 7: 'custom_id' is missing.*need an endpoint"),
        (encoded({**CHAT, "method": "GET"}), "", "method is 'GET'; expected 'POST'"),
        (encoded({**CHAT, "url": "/v1/images"}), "", "'/v1/images' takes no jobs"),
        (encoded({**CHAT, "url": "http://elsewhere/v1/completions"}), "", "takes no jobs"),
        (encoded({**CHAT, "url": "/v2/models/../../v1/models"}), "", "takes no jobs"),
        (encoded(CHAT), INFER, "is not the job's endpoint"),
        (encoded({**CHAT, "custom_id": ""}), "", "custom_id is ''"),
        (encoded({**CHAT, "custom_id": 5}), "", "custom_id is '5'"),
        (encoded({**CHAT, "body": "text"}), "", "body is no JSON object"),
        (encoded({**CHAT, "body": {"stream": True}}), "", "leave stream out"),
    ],
)
def test_bad_lines_are_refused_with_their_number(line: bytes, endpoint: str, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message) as refused:
        read_line(line, 7, endpoint)
    assert str(refused.value).startswith("line 7")


@pytest.mark.parametrize("endpoint", ["/v1/completions", "/v1/embeddings", INFER, "/v2/models/digits/versions/3/infer"])
def test_endpoints_that_take_jobs(endpoint: str) -> None:
    check_endpoint(endpoint)


def test_requests_are_kept_as_they_came() -> None:
    request = Request("ä\n", INFER, {"inputs": [{"data": [1.5]}]})
    assert Request.kept(request.line()) == request
    assert b"\n" not in request.line()


def test_results_are_openais() -> None:
    answered = json.loads(Result(200, {"x": 1}).line("r1", "a"))
    assert answered == {
        "id": "r1",
        "custom_id": "a",
        "response": {"status_code": 200, "request_id": "r1", "body": {"x": 1}},
        "error": None,
    }
    unrun = Result(0, error=("batch_expired", "too late"))
    assert unrun.failed
    assert json.loads(unrun.line("r2", "b"))["response"] is None
    assert json.loads(unrun.line("r2", "b"))["error"] == {"code": "batch_expired", "message": "too late"}
    assert [Result(status).failed for status in (200, 400, 500)] == [False, True, True]


def test_pages_go_from_the_newest_to_the_oldest() -> None:
    assert page(["a", "b", "c"], 2, "") == (["c", "b"], True)
    assert page(["a", "b", "c"], 2, "b") == (["a"], False)
    assert page([], 2, "") == ([], False)
    with pytest.raises(InvalidArgument, match="after is 'x'"):
        page(["a"], 2, "x")


def test_what_is_unsent_of_a_job_is_counted_by_model() -> None:
    spec = Spec("job", 100, 4, 0, 60, models={"digits:2": 90, "words": 10})
    assert spec.unsent(4) == {Target("digits", 2): 90, Target("words"): 10}
    assert spec.unsent(1) == {Target("digits", 2): 23, Target("words"): 3}
    assert set(spec.unsent(0).values()) == {0}
