"""Language models through the whole stack, on both fronts: a worker that fronts an OpenAI-compatible server."""

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from headrace import Client
from headrace.client.registry import RegistryClient
from headrace.v1 import text_generation_pb2 as pb
from headrace.v1.text_generation_pb2_grpc import TextGenerationServiceStub
from tests.e2e.conftest import FRONTS, ready
from tests.support.openai_server import openai_package, openai_server, text_of
from tests.support.stack import RunningStack, running_stack, wait_until

DELAY = 0.005
Folders = pytest.TempPathFactory


def push(registry: str, name: str, url: str, folder: Path) -> None:
    """A package that says where the model runs."""
    with RegistryClient(registry) as client:
        client.push(name, openai_package(folder, url))


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with openai_server(DELAY) as url:
        yield url


@pytest.fixture(scope="module", params=FRONTS)
def words(
    request: pytest.FixtureRequest, server: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningStack]:
    """A stack with one worker and the model `words`."""
    folder = tmp_path_factory.mktemp(f"text-{request.param}")
    with running_stack(folder / "data", front=request.param) as running:
        push(running.address("registry"), "words", server, folder / "words")
        with Client(running.address("gateway")) as client:
            wait_until(lambda: ready(client, "words"), "the model")
        yield running


@pytest.fixture
def stub(words: RunningStack) -> Iterator[TextGenerationServiceStub]:
    """A generated client."""
    with grpc.insecure_channel(words.address("gateway")) as channel:
        yield TextGenerationServiceStub(channel)


def active(server: str) -> dict[str, int]:
    with urllib.request.urlopen(server.removesuffix("/v1") + "/active") as answer:
        counts: dict[str, int] = json.load(answer)
        return counts


def greedy(prompt: str, **more: object) -> pb.GenerateRequest:
    return pb.GenerateRequest(model="words", text=prompt, sampling=pb.SamplingParams(temperature=0, **more))  # type: ignore[arg-type]


def test_the_whole_text_and_its_usage(stub: TextGenerationServiceStub) -> None:
    answer, call = stub.Generate.with_call(greedy("two words", max_tokens=12), timeout=30)
    assert [each.text for each in answer.sequences] == [text_of("two words", length=12)]
    assert answer.sequences[0].finish_reason == pb.FINISH_REASON_LENGTH
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.model_version) == (2, 12, 1)
    receipt = json.loads(dict(call.trailing_metadata())["headrace-receipt"])
    assert receipt["compute_us"] >= 12 * DELAY * 0.5e6


def test_pieces_come_one_by_one_and_end_with_the_usage(stub: TextGenerationServiceStub) -> None:
    events = list(stub.GenerateStream(greedy("go on", max_tokens=20), timeout=30))
    chunks = [event.chunk for event in events if event.WhichOneof("event") == "chunk"]
    assert "".join(chunk.text for chunk in chunks) == text_of("go on", length=20)
    assert len(chunks) > 5, "they came while the text was being made"
    assert [chunk.text_offset for chunk in chunks] == [
        sum(len(before.text) for before in chunks[:place]) for place in range(len(chunks))
    ]
    assert events[-1].usage.completion_tokens == 20
    assert all(event.model_version == 1 for event in events)


def test_sequences_of_one_prompt_differ_and_repeat_by_their_seed(stub: TextGenerationServiceStub) -> None:
    request = pb.GenerateRequest(model="words", text="dice", sampling=pb.SamplingParams(n=3, seed=7, max_tokens=10))
    texts = [[each.text for each in stub.Generate(request, timeout=30).sequences] for _ in range(2)]
    assert texts[0] == texts[1]
    assert len(set(texts[0])) == 3
    request.sampling.seed = 8
    assert [each.text for each in stub.Generate(request, timeout=30).sequences] != texts[0]


def test_messages_go_by_the_chat_template(stub: TextGenerationServiceStub) -> None:
    chat = pb.Chat(messages=[pb.ChatMessage(role="user", content="hello")])
    request = pb.GenerateRequest(model="words", chat=chat, sampling=pb.SamplingParams(temperature=0, max_tokens=4))
    assert stub.Generate(request, timeout=30).sequences[0].text == text_of("user: hello", length=4)


@pytest.mark.parametrize(
    ("request_", "code", "message"),
    [
        (greedy("x", max_tokens=1, min_tokens=2), grpc.StatusCode.INVALID_ARGUMENT, "min_tokens is 2"),
        (greedy("x", n=0), grpc.StatusCode.INVALID_ARGUMENT, "n is 0; expected at least 1"),
        (greedy(""), grpc.StatusCode.INVALID_ARGUMENT, "the prompt is empty"),
        (pb.GenerateRequest(model="words"), grpc.StatusCode.INVALID_ARGUMENT, "has no prompt"),
        (pb.GenerateRequest(model="nope", text="x"), grpc.StatusCode.NOT_FOUND, "no model 'nope'"),
        (greedy("x", logprobs=1), grpc.StatusCode.INVALID_ARGUMENT, "logprobs are not offered"),
        (greedy("forbidden"), grpc.StatusCode.INVALID_ARGUMENT, "this prompt is not allowed"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason(
    stub: TextGenerationServiceStub, request_: pb.GenerateRequest, code: grpc.StatusCode, message: str
) -> None:
    with pytest.raises(grpc.RpcError) as unary:
        stub.Generate(request_, timeout=30)
    assert (unary.value.code(), message in (unary.value.details() or "")) == (code, True), unary.value.details()
    with pytest.raises(grpc.RpcError) as streamed:
        list(stub.GenerateStream(request_, timeout=30))
    assert (streamed.value.code(), message in (streamed.value.details() or "")) == (code, True)


def test_a_caller_that_leaves_frees_what_it_held(stub: TextGenerationServiceStub, server: str) -> None:
    call = stub.GenerateStream(greedy("long", max_tokens=100_000), timeout=60)
    assert next(call).chunk.text
    assert active(server)["active"] == 1
    call.cancel()
    wait_until(lambda: active(server)["active"] == 0, "the server to be told", 5)


def test_a_deadline_ends_the_generation_with_its_own_error(stub: TextGenerationServiceStub, server: str) -> None:
    with pytest.raises(grpc.RpcError) as late:
        list(stub.GenerateStream(greedy("long", max_tokens=100_000), timeout=0.5))
    assert late.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    wait_until(lambda: active(server)["active"] == 0, "the server to be told", 5)


def test_operators_see_tokens_and_sequences(stub: TextGenerationServiceStub, words: RunningStack, server: str) -> None:
    stub.Generate(greedy("count me", max_tokens=9), timeout=30)
    call = stub.GenerateStream(greedy("long", max_tokens=100_000), timeout=60)
    next(call)
    assert metric(words, "worker-1", "headrace_llm_sequences_running") == 1
    call.cancel()
    wait_until(lambda: metric(words, "worker-1", "headrace_llm_sequences_running") == 0, "the sequence to be gone", 5)
    assert metric(words, "gateway", "gen_ai_server_time_to_first_token_seconds_count") >= 2
    assert metric(words, "gateway", "gen_ai_server_time_per_output_token_seconds_sum") >= DELAY / 2
    assert metric(words, "gateway", "gen_ai_client_token_usage_sum", 'gen_ai_token_type="output"') >= 9


def metric(stack: RunningStack, process: str, name: str, label: str = "") -> float:
    """The sum of the series of the model `words`."""
    with urllib.request.urlopen(f"http://{stack.metrics(process)}/metrics", timeout=30) as page:
        lines = page.read().decode().splitlines()
    found = [line for line in lines if line.startswith(f"{name}{{") and 'headrace_model_name="words"' in line]
    assert found, f"no {name} in:\n" + "\n".join(line for line in lines if not line.startswith("#"))
    return sum(float(line.rpartition(" ")[2]) for line in found if label in line)
