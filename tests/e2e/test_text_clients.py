"""Clients made by others speak to language models unmodified, on both fronts."""

import json
import subprocess
import urllib.request

import pytest

from tests.e2e.test_clients import PYTHON, ROOT
from tests.e2e.test_text import active, server, words
from tests.support.openai_server import text_of
from tests.support.stack import RunningStack, wait_until

__all__ = ["server", "words"]

EXPECTED = {
    "completion": text_of("two words", length=12),
    "three": text_of("three", length=12),
    "chat": text_of("system: be brief\nuser: hello", length=5),
}


def test_the_openai_package(words: RunningStack, server: str) -> None:
    run("openai_client.py", f"http://{words.http()}/v1")
    wait_until(lambda: active(server)["active"] == 0, "what was abandoned to end", 5)


def test_the_openai_package_runs_batches(words: RunningStack) -> None:
    run("openai_batches.py", f"http://{words.http()}/v1")


def test_tritonclient(words: RunningStack) -> None:
    run("triton_text.py", words.address("gateway"))


def test_the_endpoints_stand_in_the_docs(words: RunningStack) -> None:
    with urllib.request.urlopen(f"http://{words.http()}/openapi.json", timeout=30) as page:
        paths = json.load(page)["paths"]
    assert {"/v1/models", "/v1/completions", "/v1/chat/completions", "/v1/batches", "/v1/files"} <= set(paths)


def run(script: str, address: str) -> None:
    """One script in the clients' own environment."""
    assert PYTHON.exists(), "the clients' venv is missing; `make test` makes it, or `make clients`"
    command = [str(PYTHON), f"tests/clients/{script}", address, json.dumps(EXPECTED)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    if ended.returncode:
        pytest.fail(ended.stdout + ended.stderr)
