"""A single replica's language model whose engine breaks: nobody waits for ever, and the next caller is served."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from headrace.v1.model_pb2 import ModelSpec, ModelVersion, TextSpec
from headrace.v1.text_generation_pb2 import GenerateRequest
from services.common.errors import DeadlineExceeded, FailedPrecondition, QueueFull, Unavailable
from services.gateway.backend import TextEnd, Work
from services.gateway.routes import Route, route_of
from services.single.text import LocalText
from services.worker.llm.port import EngineStats, GenerationRequest, TokenOutput
from services.worker.runtime.openai import RemotePrompts
from services.worker.text.model import TextModel

VERSION = ModelVersion(name="words", version=1, spec=ModelSpec(text=TextSpec(), runtime="llm"))


class Engine:
    """Says "a" to every request at once; breaks at "break", and says nothing to "hang"."""

    def __init__(self) -> None:
        self.steps: asyncio.Queue[list[TokenOutput] | Exception | None] = asyncio.Queue()
        self.aborted: list[str] = []

    def submit(self, request: GenerationRequest) -> None:
        if request.source == "break":
            self.steps.put_nowait(RuntimeError("broken"))
        elif request.source != "hang":
            self.steps.put_nowait([TokenOutput(id=request.id, text="a", finish_reason="stop", output_tokens=1)])

    def abort(self, request_id: str) -> None:
        self.aborted.append(request_id)

    async def outputs(self) -> AsyncIterator[list[TokenOutput]]:
        while (step := await self.steps.get()) is not None:
            if isinstance(step, Exception):
                raise step
            yield step

    def stats(self) -> EngineStats:
        return EngineStats()

    async def close(self) -> None:
        self.steps.put_nowait(None)


class Observer:
    """Looks away."""

    def step(self) -> None: ...
    def finished(self, generation: object, companions: int) -> None: ...


class Replica:
    """LocalText over engines as above."""

    def __init__(self) -> None:
        self.engines: list[Engine] = []
        self.refuse = False
        self.backend = LocalText(VERSION, self.open, lambda stats: Observer())  # type: ignore[arg-type,return-value]  # a stand-in

    async def open(self) -> TextModel:
        if self.refuse:
            raise FailedPrecondition("no memory")
        self.engines.append(Engine())
        return TextModel(self.engines[-1], RemotePrompts(), "cpu")

    async def ask(self, text: str, timeout: float = 20.0, route: Route | None = None) -> str:
        body = GenerateRequest(text=text).SerializeToString()
        said = ""
        async for event in self.backend.generate(Work(route or route_of(VERSION), body, 1, timeout)):
            said += "." if isinstance(event, TextEnd) else event.text
        return said


@pytest.fixture
async def one() -> AsyncIterator[Replica]:
    made = Replica()
    await made.backend.load()
    running = asyncio.create_task(made.backend.run())
    yield made
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running


async def test_a_broken_engine_fails_its_callers_and_is_loaded_anew(one: Replica) -> None:
    assert await one.ask("hello") == "a."
    waiting = asyncio.create_task(one.ask("hang"))
    await asyncio.sleep(0)
    with pytest.raises(Unavailable, match="engine broke"):
        await one.ask("break")
    with pytest.raises(Unavailable, match="engine broke"):
        await waiting
    async with asyncio.timeout(10):
        while not one.backend.ready():  # noqa: ASYNC110  # nobody signals
            await asyncio.sleep(0)
    assert await one.ask("hello") == "a."
    assert len(one.engines) == 2


async def test_a_model_that_does_not_load_again_leaves_the_replica_unready(one: Replica) -> None:
    one.refuse = True
    with pytest.raises(Unavailable):
        await one.ask("break")
    with pytest.raises(Unavailable, match="engine broke"):
        await one.ask("hello")
    assert not one.backend.ready()


async def test_a_deadline_ends_what_the_engine_does_not_and_frees_it(one: Replica) -> None:
    with pytest.raises(DeadlineExceeded, match=r"no answer within 0.05 s"):
        await one.ask("hang", timeout=0.05)
    assert len(one.engines[0].aborted) == 1


async def test_more_callers_than_the_model_takes_are_refused(one: Replica) -> None:
    version = ModelVersion()
    version.CopyFrom(VERSION)
    version.spec.queue.max_requests = 1
    route = route_of(version)
    waiting = asyncio.create_task(one.ask("hang", route=route))
    await asyncio.sleep(0)
    with pytest.raises(QueueFull, match="1 requests under way"):
        await one.ask("hello", route=route)
    waiting.cancel()
    with suppress(asyncio.CancelledError):
        await waiting
    assert await one.ask("hello", route=route) == "a."
