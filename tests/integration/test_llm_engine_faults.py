"""The native engine and what goes wrong: it harms nobody but the request at fault."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from services.common.errors import DeadlineExceeded, InvalidArgument, ModelFailed
from services.worker.llm.engine import open_engine
from services.worker.llm.options import EngineOptions
from services.worker.llm.plan import Plan
from services.worker.llm.request import StructuredOutput
from services.worker.llm.runner import Runner
from services.worker.llm.sampler import Sampled
from tests.support.llm_engine import SMALL, opened, prompts, request, sampled
from tests.support.llm_models import check_greedy, oracle, save_model


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def reference(llama: Path) -> Any:
    return oracle(llama)


async def test_bad_requests_harm_themselves_only(llama: Path) -> None:
    async with opened(llama) as caller:
        with pytest.raises(InvalidArgument, match="the prompt is empty"):
            caller.engine.submit(request("empty", ()))
        with pytest.raises(InvalidArgument, match="the model's context"):
            caller.engine.submit(request("long", (1,) * 600))
        caller.engine.submit(request("a", (1, 2)))
        with pytest.raises(InvalidArgument, match="ids must be unique"):
            caller.engine.submit(request("a", (1, 2)))
        no_schema = StructuredOutput(json="no json")
        bad, good = await caller.run(request("bad", (1, 2), structured=no_schema), request("good", (1, 2)))
        assert isinstance(bad.error, InvalidArgument) and bad.finish_reason == "abort"
        assert good.finish_reason in {"length", "stop"}


async def test_an_aborted_request_frees_its_blocks_and_brings_no_more(llama: Path) -> None:
    async with opened(llama, prefix_caching=False) as caller:
        caller.engine.submit(sampled("a", (1, 2, 3), max_tokens=450))
        caller.engine.submit(sampled("b", (1, 2, 3), max_tokens=60, seed=1))
        await caller.until(lambda: len(caller.tokens("a")) > 5)
        caller.engine.abort("a")
        seen = len(caller.tokens("a"))
        caller.engine.abort("a")
        caller.engine.abort("unknown")
        await caller.until(lambda: caller.ended("b"))
        assert len(caller.tokens("a")) - seen <= 1  # a step that had been delivered
        assert not caller.ended("a")
        assert (caller.engine.stats().kv_blocks_used, caller.engine.stats().running) == (0, 0)
        caller.engine.submit(request("a", (1, 2)))  # the id is free again


async def test_a_deadline_ends_a_generation(llama: Path) -> None:
    async with opened(llama) as caller:
        late = request("late", (1, 2), deadline=time.monotonic() - 1)
        outputs = await caller.run(late, request("in time", (1, 2)))
        assert isinstance(outputs[0].error, DeadlineExceeded) and outputs[1].error is None


@contextmanager
def failing(monkeypatch: pytest.MonkeyPatch, at_fault: Any) -> Iterator[None]:
    """Makes steps raise that `at_fault`(plan)."""
    run = Runner.run

    def broken(self: Runner, plan: Plan) -> Sampled:
        result = run(self, plan)
        if at_fault(plan):
            raise RuntimeError("out of luck")
        return result

    with monkeypatch.context() as patched:
        patched.setattr(Runner, "run", broken)
        yield


async def test_a_request_that_breaks_the_step_ends_alone(
    llama: Path, reference: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    mixed = prompts(6)
    with failing(monkeypatch, lambda plan: any(s.id == "r3" and s.output_length > 4 for s in plan.sequences)):
        async with opened(llama) as caller:
            outputs = await caller.run(*(request(f"r{i}", prompt) for i, prompt in enumerate(mixed)))
    assert isinstance(outputs[3].error, ModelFailed) and "out of luck" in str(outputs[3].error)
    for i in (0, 1, 2, 4, 5):
        check_greedy(reference, mixed[i], outputs[i].token_ids)


async def test_a_fault_that_passes_is_survived(llama: Path, reference: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    mixed, count = prompts(6), iter(range(10_000))
    with failing(monkeypatch, lambda plan: len(plan.sequences) > 1 and next(count) in {3, 4, 9}):
        async with opened(llama) as caller:
            outputs = await caller.run(*(request(f"r{i}", prompt) for i, prompt in enumerate(mixed)))
    for prompt, output in zip(mixed, outputs, strict=True):
        check_greedy(reference, prompt, output.token_ids)


async def test_an_engine_that_cannot_go_on_says_so(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with failing(monkeypatch, lambda plan: len(plan.sequences) > 1):
        engine = await open_engine(llama, EngineOptions(**SMALL))
        for name in ("a", "b"):
            engine.submit(request(name, (1, 2)))
        with pytest.raises(ModelFailed, match="3 steps failed in a row: out of luck"):
            async with asyncio.timeout(30):
                async for _ in engine.outputs():
                    pass
        await engine.close()
