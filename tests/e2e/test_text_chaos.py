"""Streams survive what is killed under them: unbroken, each word once, exactly what would have come."""

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from grpc import aio

from headrace import Client
from headrace.v1 import text_generation_pb2 as pb
from headrace.v1.text_generation_pb2_grpc import TextGenerationServiceStub
from tests.e2e.conftest import FRONTS, ready
from tests.e2e.test_text import active, push
from tests.support.openai_server import openai_server, text_of
from tests.support.stack import RunningStack, running_stack, wait_until

STREAMS = 16
LENGTH = 150
DELAY = 0.02


@pytest.fixture(params=FRONTS)
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[RunningStack, str]]:
    """A stack with two workers and one model, and the server behind it."""
    environment = {"HEADRACE_DRAIN_SECONDS": "2"}  # too short for a generation to end by itself
    with (
        openai_server(DELAY) as url,
        running_stack(
            tmp_path / "data", workers=2, front=request.param, broker="embedded://", environment=environment
        ) as running,
    ):
        push(running.address("registry"), "words", url, tmp_path / "words")
        with Client(running.address("gateway")) as client:
            wait_until(lambda: ready(client, "words"), "the model")
            wait_until(lambda: consumers(client) == 2, "both workers")
        yield running, url


def consumers(client: Client) -> int:
    """How many workers consume the model's queue."""
    return sum(model.consumers for model in client.status().models)


def request_of(number: int) -> pb.GenerateRequest:
    """Half of them greedy, half drawn."""
    sampling = pb.SamplingParams(max_tokens=LENGTH, temperature=0 if number % 2 else 0.8, seed=number)
    return pb.GenerateRequest(model="words", text=f"story {number}", sampling=sampling)


class Reader:
    """One caller, and how far his stream has come."""

    def __init__(self, stub: TextGenerationServiceStub, number: int) -> None:
        self._stub = stub
        self._number = number
        self.text = ""
        self.pieces = 0
        self.usage = pb.Usage()

    async def read(self) -> None:
        """To the end."""
        stream = self._stub.GenerateStream(request_of(self._number), timeout=60)
        async for event in stream:  # type: ignore[attr-defined]
            assert event.chunk.text_offset == len(self.text) or event.HasField("usage")
            self.text += event.chunk.text
            self.pieces += 1
            self.usage = event.usage


def in_the_middle(readers: list[Reader], shortest: int) -> bool:
    """Whether all have begun; on a busy machine one may begin late, and then the fastest is not waited out."""
    return min(reader.pieces for reader in readers) >= 5 or max(len(reader.text) for reader in readers) > shortest // 2


async def undisturbed(stub: TextGenerationServiceStub) -> list[str]:
    """What comes if nothing happens."""
    answers = await asyncio.gather(*(stub.Generate(request_of(number), timeout=60) for number in range(STREAMS)))  # type: ignore[call-overload]
    return [answer.sequences[0].text for answer in answers]


@pytest.mark.parametrize(
    ("name", "number"),
    [("worker-1", signal.SIGKILL), ("worker-1", signal.SIGTERM), ("broker", signal.SIGKILL)],
)
async def test_streams_go_on_where_they_were(pair: tuple[RunningStack, str], name: str, number: signal.Signals) -> None:
    stack, server = pair
    async with aio.insecure_channel(stack.address("gateway")) as channel:
        stub: TextGenerationServiceStub = TextGenerationServiceStub(channel)
        expected = await undisturbed(stub)
        readers = [Reader(stub, each) for each in range(STREAMS)]
        async with asyncio.TaskGroup() as group:
            for reader in readers:
                group.create_task(reader.read())
            async with asyncio.timeout(30):
                while not in_the_middle(readers, min(map(len, expected))):  # noqa: ASYNC110  # nobody signals
                    await asyncio.sleep(0.01)
            assert any(len(reader.text) < len(whole) for reader, whole in zip(readers, expected, strict=True))
            await asyncio.to_thread(stack.signal, name, number)
    assert [reader.text for reader in readers] == expected
    assert [reader.text for reader in readers if reader._number % 2] == [
        text_of(f"story {each}", length=LENGTH) for each in range(1, STREAMS, 2)
    ]
    if name != "broker":
        assert active(server)["begun"] > 2 * STREAMS, "some were begun on one worker and ended on the other"
    assert all(reader.usage.completion_tokens == LENGTH for reader in readers)
