"""The native engine through the whole stack, on all three kinds of it, held against transformers' generate()."""

import asyncio
import json
import signal
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from grpc import aio

from headrace import AsyncClient, Client, TextPiece
from headrace.client.registry import RegistryClient
from headrace.v1 import text_generation_pb2 as pb
from headrace.v1.text_generation_pb2_grpc import TextGenerationServiceStub
from tests.e2e.conftest import FRONTS, MARKED_STACKS, ready, stack_of
from tests.e2e.test_text import metric
from tests.support.llm_models import check_greedy, oracle, save_model, tokenizer
from tests.support.stack import RunningStack, wait_until

if TYPE_CHECKING:
    from headrace.v1.text_generation_pb2_grpc import TextGenerationServiceAsyncStub

STREAMS = 16
LENGTH = 480
TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<bot>{% endif %}"
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random llama with a chat template."""
    folder = save_model(tmp_path_factory.mktemp("llama") / "words")
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    (folder / "model.yaml").write_text("llm: {kv_cache_memory: 64MiB, dtype: float32, max_num_seqs: 32}\n")
    return folder


@pytest.fixture(scope="module", params=(*FRONTS, MARKED_STACKS[-1]))
def pair(
    request: pytest.FixtureRequest, model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningStack]:
    """A stack with two workers that hold the model."""
    folder = tmp_path_factory.mktemp(f"native-{request.param}")
    # A worker that drains has no time to end what it runs: others must go on with it.
    variables = {"HEADRACE_DRAIN_SECONDS": "1"}
    with stack_of(request, folder, workers=2, environment=variables) as running:
        with RegistryClient(running.address("registry")) as registry, Client(running.address("gateway")) as client:
            registry.push("words", model)
            wait_until(lambda: ready(client, "words"), "the model", 60)
            wait_until(lambda: sum(each.consumers for each in client.status().models) == 2, "both workers", 60)
        yield running


@pytest.fixture
def client(pair: RunningStack) -> Iterator[Client]:
    with Client(pair.address("gateway")) as connected:
        yield connected


def test_greedy_text_is_what_generate_gives(client: Client, model: Path) -> None:
    reference, prompt = oracle(model), tuple(tokenizer().encode("the wheel turns").ids)
    for asked in ("the wheel turns", prompt):
        answer = client.generate("words", asked, temperature=0, max_tokens=40, timeout=60)
        check_greedy(reference, prompt, tuple(answer.token_ids[0]))
        assert answer.text == tokenizer().decode(answer.token_ids[0])
        assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (len(prompt), len(answer.token_ids[0]))


def test_a_chat_goes_by_the_models_template(client: Client) -> None:
    chat = client.generate("words", [{"role": "user", "content": "hi"}], temperature=0, max_tokens=12, timeout=60)
    text = client.generate("words", "<user>hi<bot>", temperature=0, max_tokens=12, timeout=60)
    assert chat.token_ids == text.token_ids


def test_pieces_join_to_whole_characters_and_stop_strings_stay_out(client: Client) -> None:
    whole = client.generate("words", "go", temperature=0, max_tokens=60, ignore_eos=True, timeout=60)
    pieces = list(client.stream("words", "go", temperature=0, max_tokens=60, ignore_eos=True, timeout=60))
    assert "".join(piece.text for piece in pieces) == whole.text
    assert [token for piece in pieces for token in piece.token_ids] == whole.token_ids[0]
    stop = whole.text[20:23]
    stopped = client.generate("words", "go", temperature=0, max_tokens=60, ignore_eos=True, stop=[stop], timeout=60)
    assert stopped.text == whole.text[: whole.text.index(stop)]
    assert stopped.finish_reasons == ["stop"]


def test_openais_stream_is_the_same_text(pair: RunningStack, client: Client) -> None:
    asked: dict[str, Any] = {"temperature": 0, "max_tokens": 60, "ignore_eos": True}
    whole = client.generate("words", "go", timeout=60, **asked)
    body = {"model": "words", "prompt": "go", "stream": True, "stream_options": {"include_usage": True}, **asked}
    request = urllib.request.Request(
        f"http://{pair.http()}/v1/completions", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        events = [line.removeprefix(b"data: ").strip() for line in answer if line.startswith(b"data: ")]
    assert events.pop() == b"[DONE]"
    chunks = [json.loads(event) for event in events]
    pieces = [choice["text"] for chunk in chunks for choice in chunk["choices"]]
    assert len(pieces) > 1
    assert "".join(pieces) == whole.text
    assert chunks[-1]["usage"]["completion_tokens"] == 60


def test_answers_that_must_be_json_are(client: Client) -> None:
    schema = {
        "type": "object",
        "properties": {"ok": {"type": "boolean"}},
        "required": ["ok"],
        "additionalProperties": False,
    }
    answer = client.generate("words", "say", json=json.dumps(schema), seed=3, max_tokens=200, timeout=60)
    assert isinstance(json.loads(answer.text)["ok"], bool)


def requests() -> list[dict[str, Any]]:
    """Half of them greedy, half drawn, some of several sequences."""
    made = []
    for number in range(STREAMS):
        drawn = {"temperature": 0.9, "seed": number} if number % 2 else {"temperature": 0}
        made.append({"max_tokens": LENGTH, "ignore_eos": True, "n": 2 if number % 5 == 1 else 1, **drawn})
    return made


class Reader:
    """One stream as its caller sees it."""

    def __init__(self, sequences: int) -> None:
        self.tokens: list[list[int]] = [[] for _ in range(sequences)]
        self.texts = [""] * sequences
        self.last: TextPiece | None = None

    async def read(self, client: AsyncClient, number: int, asked: dict[str, Any]) -> None:
        """To the end."""
        async for piece in client.stream("words", f"story {number}", timeout=90, **asked):
            self.texts[piece.index] += piece.text
            self.tokens[piece.index] += piece.token_ids
            self.last = piece


def in_the_middle(readers: list[Reader]) -> bool:
    """Whether all have begun; on a busy machine one may begin late, and then the fastest is not waited out."""
    lengths = [len(reader.tokens[0]) for reader in readers]
    return min(lengths) >= 3 or max(lengths) > LENGTH // 2


async def test_callers_find_a_place_however_much_lets_them_go_first(pair: RunningStack) -> None:
    def asked(tokens: int) -> pb.GenerateRequest:
        sampling = pb.SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True)
        return pb.GenerateRequest(model="words", text="go", sampling=sampling)

    def all_accepted() -> bool:
        with Client(pair.address("gateway")) as client:
            return client.status().models[0].in_flight == waiting

    # The two engines have 32 places each: if they ran as they came, a caller would wait until 32 of these are done.
    waiting = 96
    async with aio.insecure_channel(pair.address("gateway")) as channel:
        stub: TextGenerationServiceAsyncStub = TextGenerationServiceStub(channel)
        low = (("headrace-priority", "background"),)
        behind = [stub.Generate(asked(LENGTH), timeout=90, metadata=low) for _ in range(waiting)]
        await asyncio.to_thread(wait_until, all_accepted, "all to be accepted")
        answer = await stub.Generate(asked(5), timeout=90)
        assert len(answer.sequences[0].token_ids) == 5
        assert sum(call.done() for call in behind) < 32
        for call in behind:
            call.cancel()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_streams_outlive_their_worker_token_for_token(pair: RunningStack, number: signal.Signals) -> None:
    async with AsyncClient(pair.address("gateway")) as client:
        asked = requests()
        expected = await asyncio.gather(
            *(client.generate("words", f"story {place}", timeout=90, **each) for place, each in enumerate(asked))
        )
        readers = [Reader(each["n"]) for each in asked]
        async with asyncio.TaskGroup() as group:
            for place, (reader, each) in enumerate(zip(readers, asked, strict=True)):
                group.create_task(reader.read(client, place, each))
            async with asyncio.timeout(60):
                while not in_the_middle(readers):  # noqa: ASYNC110  # nobody signals
                    await asyncio.sleep(0.005)
            assert any(len(reader.tokens[0]) < LENGTH for reader in readers)
            await asyncio.to_thread(pair.signal, "worker-1", number)
    for reader, whole in zip(readers, expected, strict=True):
        assert reader.tokens == whole.token_ids
        assert reader.texts == whole.texts
        assert reader.last is not None
        assert reader.last.usage is not None
        assert reader.last.usage.prompt_tokens == whole.usage.prompt_tokens
        assert reader.last.usage.completion_tokens == whole.usage.completion_tokens == LENGTH * len(reader.texts)
    # The next test wants both workers again.
    with Client(pair.address("gateway")) as status:
        await asyncio.to_thread(
            wait_until, lambda: sum(each.consumers for each in status.status().models) == 2, "both workers", 60
        )


async def test_a_caller_that_leaves_frees_its_blocks(pair: RunningStack) -> None:
    async with aio.insecure_channel(pair.address("gateway")) as channel:
        sampling = pb.SamplingParams(max_tokens=400, ignore_eos=True)
        request = pb.GenerateRequest(model="words", text="long", sampling=sampling)
        call = TextGenerationServiceStub(channel).GenerateStream(request, timeout=60)
        await anext(aiter(call))
        call.cancel()
    await asyncio.to_thread(wait_until, lambda: blocks(pair) == 0, "the blocks to be free", 10)


def blocks(pair: RunningStack) -> float:
    """KV blocks in use on both workers."""
    return sum(metric(pair, name, "headrace_llm_kv_blocks_used") for name in ("worker-1", "worker-2"))
