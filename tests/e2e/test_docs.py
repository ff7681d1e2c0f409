"""The examples of docs/apis.md and of the quick start run as they stand there, but for the address."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from headrace import Client
from headrace.client.registry import RegistryClient
from tests.e2e.conftest import ready
from tests.e2e.test_clients import NODE_MODULES, PYTHON
from tests.support.docs import ROOT, blocks
from tests.support.stack import RunningStack, running_stack, wait_until

APIS, QUICKSTART = Path("docs/apis.md"), Path("docs/quickstart.md")


@dataclass(frozen=True, slots=True)
class Example:
    """One block of a page: the one with this word in it."""

    page: Path
    language: str
    word: str
    command: tuple[str, ...]
    # What stands in what it prints.
    answer: str


EXAMPLES = {
    "quickstart": Example(QUICKSTART, "python", "Client(", (sys.executable, "-c"), "queue_us"),
    "headrace": Example(APIS, "python", "QueueFullError", (sys.executable, "-c"), "INVALID_ARGUMENT"),
    "tritonclient": Example(APIS, "python", "tritonclient", (str(PYTHON), "-c"), "64"),
    "node": Example(APIS, "js", "grpc-js", ("node", "-e"), "queue_us"),
}


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """A stack with the model that the quick start trains."""
    folder = tmp_path_factory.mktemp("docs")
    model = folder / "digits.onnx"
    subprocess.run([sys.executable, "examples/digits.py", "--export", str(model)], cwd=ROOT, check=True, timeout=100)
    with running_stack(folder / "data") as stack:
        with RegistryClient(stack.address("registry")) as registry, Client(stack.address("gateway")) as client:
            registry.push("digits", model)
            wait_until(lambda: ready(client, "digits"), "digits to be ready")
        yield stack


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_run(digits: RunningStack, name: str) -> None:
    example = EXAMPLES[name]
    (code,) = [block for block in blocks(example.page, example.language) if example.word in block]
    command = [*example.command, code.replace("127.0.0.1:8001", digits.address("gateway"))]
    environment = {**os.environ, "NODE_PATH": str(NODE_MODULES)}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert ended.returncode == 0, ended.stderr
    assert example.answer in ended.stdout
