"""/v1/embeddings through the whole stack, asked by the openai package and by tensors."""

import json
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from headrace import Client
from headrace.client.registry import RegistryClient
from tests.e2e.conftest import ready
from tests.e2e.test_clients import PYTHON, ROOT
from tests.support import models
from tests.support.embedding_models import expected, save_bert, token_ids
from tests.support.stack import RunningStack, running_stack, wait_until

TEXTS = ["the wheel turns", "water", "a rather longer text"]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_bert(tmp_path_factory.mktemp("encoder") / "model")


@pytest.fixture(scope="module")
def running(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    folder = tmp_path_factory.mktemp("embeddings")
    with running_stack(folder / "data") as up:
        with RegistryClient(up.address("registry")) as registry, Client(up.address("gateway")) as client:
            registry.push("encoder", encoder)
            registry.push("plain", models.add_one(folder / "plain.onnx"))
            for name in ("encoder", "plain"):
                wait_until(lambda name=name: ready(client, name), name, 60)  # type: ignore[misc]  # mypy on defaults
        yield up


def test_the_openai_package(running: RunningStack, encoder: Path) -> None:
    known = {
        "texts": TEXTS,
        "ids": [token_ids(encoder, text) for text in TEXTS],
        "vectors": [expected(encoder, text, "mean").tolist() for text in TEXTS],
    }
    command = [str(PYTHON), "tests/clients/openai_embeddings.py", f"http://{running.http()}/v1", json.dumps(known)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    if ended.returncode:
        pytest.fail(ended.stdout + ended.stderr)


def test_texts_of_many_callers_share_batches(running: RunningStack, encoder: Path) -> None:
    wanted = [expected(encoder, text, "mean") for text in TEXTS]
    with Client(running.address("gateway")) as client, ThreadPoolExecutor(16) as pool:

        def ask(number: int) -> int:
            inputs = {"text_input": np.array([TEXTS[number % 3]], dtype=object)}
            result = client.infer("encoder", inputs, timeout=60)
            np.testing.assert_allclose(result.outputs["embedding"][0], wanted[number % 3], atol=1e-5)
            return int(result.receipt["batch_requests"])

        assert max(pool.map(ask, range(96))) > 1
