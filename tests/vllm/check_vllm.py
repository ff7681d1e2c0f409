"""`runtime: vllm` through a whole stack, with vLLM itself: `make test-vllm` gives it an environment of its own.

Not among the tests that `make test` collects: vLLM pins a torch of its own, and takes a minute to start.
"""

import asyncio
import json
import os
import re
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from headrace import AsyncClient, Client
from headrace.cli.ports import free_port
from headrace.client.errors import InvalidArgumentError
from headrace.client.registry import RegistryClient
from tests.e2e.conftest import ready
from tests.support.llm_models import check_greedy, oracle
from tests.support.stack import RunningStack, descendants, running_stack, wait_until

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv-vllm" / "bin" / "python"
PROMPT = 'The "try" statement'
TOKENIZER = Tokenizer.from_file(str(ROOT / "examples" / "writer" / "tokenizer.json"))
START_SECONDS = 400.0
MANIFEST = """
runtime: vllm
llm: {dtype: float32, max_num_seqs: 4, kv_cache_memory: 64MiB}
vllm: {enforce_eager: true}
"""
# The first start may compile.
pytestmark = pytest.mark.timeout(900)


class VllmWorker:
    """One that runs in vLLM's environment."""

    def __init__(self, process: "subprocess.Popen[bytes]", metrics: str) -> None:
        self.process, self._metrics = process, metrics

    def metric(self, name: str) -> float:
        """Of the Prometheus page."""
        with urllib.request.urlopen(f"http://{self._metrics}/metrics", timeout=10) as page:
            lines = page.read().decode().splitlines()
        found = [float(line.split()[-1]) for line in lines if line.startswith(f"{name}{{")]
        assert found, name
        return sum(found)


@contextmanager
def vllm_worker(stack: RunningStack, folder: Path, number: int) -> Iterator[VllmWorker]:
    metrics = f"127.0.0.1:{free_port()}"
    environment = {
        **os.environ,
        "HEADRACE_BROKER": f"embedded://{stack.address('broker')}",
        "HEADRACE_REGISTRY": stack.address("registry"),
        "HEADRACE_WORKER_ID": f"vllm-{number}",
        "HEADRACE_CACHE": str(folder / f"cache-{number}"),
        "HEADRACE_METRICS": metrics,
    }
    log = folder / f"worker-{number}.log"
    with log.open("wb") as said:
        process = subprocess.Popen(
            [str(PYTHON), "-m", "services.worker"], stdout=said, stderr=said, env=environment, start_new_session=True
        )
    try:
        yield VllmWorker(process, metrics)
    finally:
        process.terminate()
        process.wait(60)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # vLLM's attention on CPUs knows no heads as small as those of the other tests' models.
    folder = Path(shutil.copytree(ROOT / "examples" / "writer", tmp_path_factory.mktemp("llama") / "words"))
    (folder / "model.yaml").write_text(MANIFEST)
    return folder


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    assert PYTHON.exists(), "vLLM's environment is missing; `make test-vllm` makes it"
    with running_stack(tmp_path_factory.mktemp("stack") / "data", workers=0) as running:
        yield running


@pytest.fixture(scope="module")
def workers(
    stack: RunningStack, model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[VllmWorker, VllmWorker]]:
    folder = tmp_path_factory.mktemp("workers")
    with RegistryClient(stack.address("registry")) as registry, Client(stack.address("gateway")) as client:
        registry.push("words", model)
        with ExitStack() as both:
            pair = tuple(both.enter_context(vllm_worker(stack, folder, number)) for number in (1, 2))
            for number, worker in enumerate(pair, 1):
                log = folder / f"worker-{number}.log"
                wait_until(
                    lambda log=log, worker=worker: (  # type: ignore[misc]  # mypy on defaults
                        b"ready worker" in log.read_bytes() or worker.process.poll() is not None
                    ),
                    f"worker {number}",
                    START_SECONDS,
                )
                assert worker.process.poll() is None, log.read_text()
            wait_until(lambda: ready(client, "words"), "the model", 60)
            yield pair[0], pair[1]


@pytest.fixture
def client(stack: RunningStack, workers: object) -> Iterator[Client]:
    with Client(stack.address("gateway")) as connected:
        yield connected


def test_greedy_text_is_what_generate_gives(client: Client, model: Path) -> None:
    prompt = tuple(TOKENIZER.encode(PROMPT).ids)
    answer = client.generate("words", PROMPT, temperature=0, max_tokens=40, logprobs=3, timeout=100)
    check_greedy(oracle(model), prompt, tuple(answer.token_ids[0]), tolerance=1e-3)
    assert answer.text == TOKENIZER.decode(answer.token_ids[0])
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (len(prompt), len(answer.token_ids[0]))
    pieces = list(client.stream("words", PROMPT, temperature=0, max_tokens=40, timeout=100))
    assert "".join(piece.text for piece in pieces) == answer.text
    stop = answer.text[5:8]
    stopped = client.generate("words", PROMPT, temperature=0, max_tokens=40, stop=[stop], timeout=100)
    assert stopped.text == answer.text[: answer.text.index(stop)]


def test_sampling_structured_output_and_refusals(client: Client) -> None:
    drawn = {"temperature": 1.0, "seed": 5, "max_tokens": 20, "ignore_eos": True, "top_k": 40, "min_p": 0.01}
    first, again = (client.generate("words", PROMPT, timeout=100, **drawn) for _ in range(2))  # type: ignore[arg-type]
    assert first.token_ids == again.token_ids
    assert first.usage.completion_tokens == 20
    two = client.generate("words", PROMPT, n=2, timeout=100, **drawn)  # type: ignore[arg-type]
    assert two.texts[0] != two.texts[1]
    schema = json.dumps({"type": "boolean"})
    answer = client.generate("words", "say", json=schema, seed=3, max_tokens=10, timeout=100)
    assert answer.text in {"true", "false"}
    assert re.fullmatch("[a-c]{3}", client.generate("words", "say", regex="[a-c]{3}", timeout=100).text)
    assert client.generate("words", "say", choice={"options": ["left", "right"]}, timeout=100).text in {"left", "right"}
    with pytest.raises(InvalidArgumentError, match="at least one must be left"):
        client.generate("words", PROMPT * 300, timeout=100)


async def test_a_caller_that_leaves_frees_his_blocks(
    stack: RunningStack, workers: tuple[VllmWorker, VllmWorker]
) -> None:
    async with AsyncClient(stack.address("gateway")) as client:
        stream = client.stream("words", PROMPT, max_tokens=450, ignore_eos=True, timeout=100)
        await anext(stream)
        await stream.aclose()  # type: ignore[attr-defined]  # it is a generator
        # vLLM tells its figures with each step; the next one brings them up to date.
        async with asyncio.timeout(60):
            while sum(worker.metric("headrace_llm_kv_blocks_used") for worker in workers):
                for _ in range(4):
                    await client.generate("words", "go", max_tokens=2, timeout=100)


async def test_streams_outlive_a_killed_worker_and_nothing_of_vllm_stays(
    stack: RunningStack, workers: tuple[VllmWorker, VllmWorker], model: Path
) -> None:
    processes = descendants(workers[0].process.pid)
    assert processes, "vLLM runs in processes of its own"
    length = 400
    readers: list[list[int]] = [[] for _ in range(24)]

    async def read(client: AsyncClient, number: int) -> str:
        text = ""
        sampling = {"temperature": 0.0, "max_tokens": length, "ignore_eos": True}
        async for piece in client.stream("words", f"{PROMPT} {number}", timeout=200, **sampling):  # type: ignore[arg-type]
            readers[number] += piece.token_ids
            text += piece.text
        return text

    async with AsyncClient(stack.address("gateway")) as client:
        tasks = [asyncio.create_task(read(client, number)) for number in range(len(readers))]
        async with asyncio.timeout(100):
            while not await asyncio.to_thread(workers[0].metric, "headrace_llm_sequences_running"):  # noqa: ASYNC110  # no signal
                await asyncio.sleep(0.01)
        workers[0].process.kill()
        assert not all(len(tokens) == length for tokens in readers), "some are still to come"
        texts = await asyncio.gather(*tasks)
    reference = oracle(model)
    for number, (tokens, text) in enumerate(zip(readers, texts, strict=True)):
        assert len(tokens) == length
        assert text == TOKENIZER.decode(tokens)
        prompt = tuple(TOKENIZER.encode(f"{PROMPT} {number}").ids)
        end = tokens.index(0) if 0 in tokens else length  # generate() ends at the first end token
        check_greedy(reference, prompt, tuple(tokens[: end + 1]), tolerance=1e-3)
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in processes), "vLLM's processes to end", 60)
