"""`headrace serve` of models that read text: a language model with many callers, and one that makes embeddings."""

import asyncio
import json
import re
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from headrace import AsyncClient, Client
from headrace.client.errors import InvalidArgumentError
from tests.e2e.test_clients import PYTHON, ROOT
from tests.support.embedding_models import expected, save_bert
from tests.support.llm_models import check_greedy, oracle, save_model, tokenizer
from tests.support.single import Replica, replica
from tests.support.stack import wait_until

PROMPT = "the wheel turns"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save_model(tmp_path_factory.mktemp("llama") / "words")
    (folder / "model.yaml").write_text("llm: {kv_cache_memory: 64MiB, dtype: float32}\n")
    (folder / "chat_template.jinja").write_text("{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}")
    return folder


@pytest.fixture(scope="module")
def words(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    with replica(str(model), tmp_path_factory.mktemp("replica")) as one:
        yield one


def post(one: Replica, path: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(
        f"http://{one.http}/v1/{path}", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


async def test_many_callers_stream_at_a_time_and_each_leaves_a_latency_line(words: Replica, model: Path) -> None:
    before = len(words.latency_lines())
    async with AsyncClient(words.grpc) as client:

        async def stream(number: int) -> tuple[list[int], int]:
            tokens: list[int] = []
            sampling: dict[str, Any] = {"temperature": 0.8 if number % 2 else 0, "seed": number // 2, "max_tokens": 60}
            async for piece in client.stream("words", PROMPT, ignore_eos=True, timeout=60, **sampling):
                tokens += piece.token_ids
                usage = piece.usage
            assert usage is not None
            return tokens, usage.completion_tokens

        streams = await asyncio.gather(*(stream(number) for number in range(16)))
        alone = await client.generate("words", PROMPT, ignore_eos=True, temperature=0, max_tokens=60, timeout=60)
    assert [count for _, count in streams] == [len(tokens) for tokens, _ in streams] == [60] * 16
    assert all(tokens == alone.token_ids[0] for tokens, _ in streams[::2]), "greedy ones are all the same"
    assert len({tuple(tokens) for tokens, _ in streams[1::2]}) > 1
    assert len(words.latency_lines()) - before == 17
    assert all("outcome=ok tokens=60" in line for line in words.latency_lines()[before:])


def test_openais_endpoints(words: Replica, model: Path) -> None:
    with Client(words.grpc) as client:
        greedy = client.generate("words", PROMPT, temperature=0, max_tokens=40, timeout=60)
        check_greedy(oracle(model), tuple(tokenizer().encode(PROMPT).ids), tuple(greedy.token_ids[0]))
        whole = client.generate("words", PROMPT, temperature=0, max_tokens=12, n=2, timeout=60)
    asked = {"model": "words", "prompt": PROMPT, "temperature": 0, "max_tokens": 12, "n": 2}
    assert [choice["text"] for choice in post(words, "completions", asked)["choices"]] == whole.texts


def test_log_probabilities_and_structured_output_by_the_openai_package(words: Replica, model: Path) -> None:
    expected = {"prompt": PROMPT, **greedy_logprobs(model, 8)}
    command = [str(PYTHON), "tests/clients/openai_native.py", f"http://{words.http}/v1", json.dumps(expected)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    if ended.returncode:
        pytest.fail(ended.stdout + ended.stderr)


@torch.inference_mode()
def greedy_logprobs(model: Path, count: int) -> dict[str, Any]:
    """What transformers makes of the prompt, a token at a time."""
    reference, ids, tokens, logprobs = oracle(model), tokenizer().encode(PROMPT).ids, [], []
    for _ in range(count):
        scores = reference(input_ids=torch.tensor([ids])).logits[0, -1].log_softmax(-1)
        token = int(scores.argmax())
        ids.append(token)
        tokens.append(tokenizer().decode([token], skip_special_tokens=False))
        logprobs.append(float(scores[token]))
    return {"tokens": tokens, "logprobs": logprobs}


def test_what_does_not_fit_is_refused_and_nobody_waits_for_it(words: Replica) -> None:
    with Client(words.grpc) as client:
        with pytest.raises(InvalidArgumentError, match="context"):
            client.generate("words", PROMPT * 200, max_tokens=4, timeout=60)
        with pytest.raises(InvalidArgumentError, match="knows no x"):
            client.infer("words", {"x": np.zeros((1, 1), np.float32)}, timeout=20)


async def test_a_caller_that_leaves_ends_his_generation(words: Replica) -> None:
    before = len(words.latency_lines())
    async with AsyncClient(words.grpc) as client:
        pieces = client.stream("words", PROMPT, max_tokens=480, ignore_eos=True, timeout=60)
        await anext(pieces)
        await pieces.aclose()  # type: ignore[attr-defined]  # it is a generator
        await asyncio.to_thread(wait_until, lambda: len(words.latency_lines()) > before, "his latency line", 20)
        line = words.latency_lines()[before]
        assert re.search(r"outcome=error tokens=0 ", line), line
        assert (await client.generate("words", PROMPT, max_tokens=4, timeout=60)).usage.completion_tokens == 4


def test_embeddings(tmp_path: Path) -> None:
    encoder = save_bert(tmp_path / "encoder")
    with replica(str(encoder), tmp_path / "replica") as one:
        answer = post(one, "embeddings", {"model": "encoder", "input": ["water", PROMPT]})
    for text, each in zip(["water", PROMPT], answer["data"], strict=True):
        np.testing.assert_allclose(each["embedding"], expected(encoder, text, "mean"), atol=1e-5)
