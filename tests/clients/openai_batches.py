"""OpenAI's client runs batches on a stack, run by tests/e2e/test_text_clients.py: `openai_batches.py URL EXPECTED`.

EXPECTED is JSON: what the model says, from whoever knows the model.
"""

import json
import sys
import time
from typing import Any

import openai
from openai import OpenAI

ENDPOINT: Any = "/v1/chat/completions"
MESSAGES = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"}]
WAIT_SECONDS = 60.0


def line(custom_id: str, **body: Any) -> str:
    """A request to the model, or to another."""
    asked = {"model": "words", "messages": MESSAGES, "temperature": 0, "max_completion_tokens": 5, **body}
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": ENDPOINT, "body": asked})


def upload(client: OpenAI, *lines: str) -> str:
    """A file of them."""
    file: str = client.files.create(file=("requests.jsonl", "\n".join(lines).encode()), purpose="batch").id
    return file


def ended(client: OpenAI, batch: str) -> Any:
    """The batch, once it has ended."""
    give_up_at = time.monotonic() + WAIT_SECONDS
    while (found := client.batches.retrieve(batch)).status in {"in_progress", "cancelling"}:
        assert time.monotonic() < give_up_at, found
        time.sleep(0.1)
    return found


def answered(client: OpenAI, expected: dict[str, Any]) -> None:
    """Upload, create, retrieve, list, results and errors in files of their own."""
    file = upload(client, *(line(f"request-{number}") for number in range(40)), line("lost", model="nobody"))
    info = client.files.retrieve(file)
    assert (info.filename, info.purpose, info.object) == ("requests.jsonl", "batch", "file")
    assert file in [each.id for each in client.files.list(purpose="batch")]
    batch = client.batches.create(
        input_file_id=file, endpoint=ENDPOINT, completion_window="24h", metadata={"for": "the test"}
    )
    assert (batch.object, batch.completion_window, batch.metadata) == ("batch", "24h", {"for": "the test"})
    assert batch.id in [each.id for each in client.batches.list(limit=5)]
    done = ended(client, batch.id)
    assert (done.status, done.input_file_id, done.endpoint) == ("completed", file, ENDPOINT)
    assert (done.request_counts.total, done.request_counts.completed, done.request_counts.failed) == (41, 40, 1)
    assert done.completed_at >= done.created_at
    results = [json.loads(each) for each in client.files.content(done.output_file_id).text.splitlines()]
    assert [result["custom_id"] for result in results] == [f"request-{number}" for number in range(40)]
    for result in results:
        body = result["response"]["body"]
        assert (result["response"]["status_code"], result["error"]) == (200, None)
        assert body["choices"][0]["message"]["content"] == expected["chat"]
    (error,) = [json.loads(each) for each in client.files.content(done.error_file_id).text.splitlines()]
    assert (error["custom_id"], error["response"]["status_code"]) == ("lost", 404)
    assert "no model 'nobody'" in error["response"]["body"]["error"]["message"]
    assert client.files.retrieve(done.output_file_id).purpose == "batch_output"
    assert client.files.content(file).text.splitlines()[0] == line("request-0")
    assert client.files.delete(file).deleted
    try:
        client.files.retrieve(file)
    except openai.NotFoundError as gone:
        assert file in gone.message
    else:
        raise AssertionError("a deleted file is still there")


def cancelled(client: OpenAI, expected: dict[str, Any]) -> None:
    """What was not answered has a word in the error file."""
    # The stand-in server takes its time for each token: these would last for hours.
    lines = [line(f"request-{number}", max_completion_tokens=100_000) for number in range(10)]
    batch = client.batches.create(input_file_id=upload(client, *lines), endpoint=ENDPOINT, completion_window="24h")
    assert client.batches.cancel(batch.id).status in {"cancelling", "cancelled"}
    done = ended(client, batch.id)
    assert (done.status, done.output_file_id, done.request_counts.failed) == ("cancelled", None, 10)
    errors = [json.loads(each) for each in client.files.content(done.error_file_id).text.splitlines()]
    assert {error["error"]["code"] for error in errors} == {"batch_cancelled"}


def refused(client: OpenAI, expected: dict[str, Any]) -> None:
    """Mistakes are told at once, in the client's own classes."""
    good = upload(client, line("a"))
    cases: list[tuple[type[openai.APIStatusError], dict[str, Any], str]] = [
        (
            openai.BadRequestError,
            {"input_file_id": upload(client, line("a"), '{"body": {}}')},
            "line 2: 'custom_id' is missing",
        ),
        (openai.BadRequestError, {"input_file_id": upload(client, line("a"), line("a"))}, "custom_id 'a' is that of"),
        (openai.BadRequestError, {"endpoint": "/v1/completions"}, "is not the job's endpoint"),
        (openai.BadRequestError, {"completion_window": "soon"}, "completion_window is 'soon'"),
        (openai.NotFoundError, {"input_file_id": "file_1"}, "no file 'file_1'"),
    ]
    for kind, wrong, message in cases:
        try:
            client.batches.create(**{"input_file_id": good, "endpoint": ENDPOINT, "completion_window": "24h", **wrong})
        except kind as error:
            assert message in error.message, error.message
        else:
            raise AssertionError(f"{wrong} was taken")
    for method in (client.batches.retrieve, client.batches.cancel, client.files.content):
        try:
            method("nobody")
        except openai.NotFoundError as error:
            assert "'nobody'" in error.message
        else:
            raise AssertionError("there is no such thing")
    try:
        client.files.create(file=("x.jsonl", b"{}"), purpose="vision")
    except openai.BadRequestError as error:
        assert "'batch' only" in error.message
    else:
        raise AssertionError("a purpose that nothing here serves was taken")


def main(url: str, expected: dict[str, Any]) -> None:
    """Everything."""
    with OpenAI(base_url=url, api_key="none", max_retries=0) as client:
        for check in (answered, cancelled, refused):
            check(client, expected)


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
