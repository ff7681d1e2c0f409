"""The native engine: transformers' generate() is the oracle for every family, in any company and after any mishap."""

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from services.common.errors import DeadlineExceeded, InvalidArgument, ModelFailed
from services.worker.llm.engine import Engine, open_engine
from services.worker.llm.options import EngineOptions
from services.worker.llm.plan import Plan
from services.worker.llm.request import GenerationRequest, SamplingParams, StructuredOutput, TokenOutput
from services.worker.llm.runner import Runner
from services.worker.llm.sampler import Sampled
from tests.support.llm_models import FAMILIES, check_greedy, oracle, save_model, tokenizer

SMALL: dict[str, Any] = {"num_blocks": 400, "max_num_seqs": 32, "max_num_batched_tokens": 96, "threads": 1}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {family: save_model(tmp_path_factory.mktemp(family), family) for family in FAMILIES}


@pytest.fixture(scope="module")
def oracles(folders: dict[str, Path]) -> dict[str, Any]:
    return {family: oracle(folder) for family, folder in folders.items()}


class Caller:
    """Collects what an engine brings, by request."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.outputs: dict[str, list[TokenOutput]] = {}
        self.steps = 0
        self._news = asyncio.Condition()

    async def pump(self) -> None:
        async for outputs in self.engine.outputs():
            self.steps += 1
            for output in outputs:
                self.outputs.setdefault(output.id, []).append(output)
            async with self._news:
                self._news.notify_all()

    async def run(self, *requests: GenerationRequest) -> list[TokenOutput]:
        """Submits all and waits for their ends; each one's outputs joined."""
        for request in requests:
            self.engine.submit(request)
        await self.until(lambda: all(self.ended(request.id) for request in requests))
        return [self.joined(request.id) for request in requests]

    async def until(self, condition: Any) -> None:
        async with asyncio.timeout(60), self._news:
            await self._news.wait_for(condition)

    def tokens(self, name: str) -> tuple[int, ...]:
        return tuple(token for output in self.outputs.get(name, []) for token in output.token_ids)

    def ended(self, name: str) -> bool:
        return name in self.outputs and self.outputs[name][-1].finish_reason is not None

    def joined(self, name: str) -> TokenOutput:
        parts = self.outputs[name]
        assert all(part.finish_reason is None for part in parts[:-1])
        last = parts[-1]
        return TokenOutput(
            id=name,
            token_ids=self.tokens(name),
            text="".join(part.text for part in parts),
            logprobs=tuple(one for part in parts for one in part.logprobs or ()),
            finish_reason=last.finish_reason,
            stop_reason=last.stop_reason,
            prompt_tokens=last.prompt_tokens,
            cached_tokens=last.cached_tokens,
            output_tokens=last.output_tokens,
            error=last.error,
        )


@asynccontextmanager
async def opened(folder: Path, **options: Any) -> AsyncIterator[Caller]:
    """An engine, whose books are checked when all is done."""
    engine = await open_engine(folder, EngineOptions(**{**SMALL, **options}))
    caller = Caller(engine)
    async with asyncio.TaskGroup() as group:
        group.create_task(caller.pump())
        try:
            yield caller
        finally:
            await engine.close()
    engine._stepper.scheduler.check_integrity()


def prompts(count: int, lengths: tuple[int, ...] = (1, 5, 16, 33, 70, 128), seed: int = 0) -> list[tuple[int, ...]]:
    chance = random.Random(seed)
    return [tuple(chance.randrange(1, 500) for _ in range(chance.choice(lengths))) for _ in range(count)]


def request(name: str, prompt: tuple[int, ...], resume: tuple[int, ...] = (), **params: Any) -> GenerationRequest:
    chosen = {"temperature": 0, "max_tokens": 24, **params}
    deadline = chosen.pop("deadline", float("inf"))
    return GenerationRequest(id=name, prompt=prompt, resume=resume, params=SamplingParams(**chosen), deadline=deadline)


def sampled(name: str, prompt: tuple[int, ...], **params: Any) -> GenerationRequest:
    return request(name, prompt, **{"temperature": 0.9, "top_p": 0.95, "ignore_eos": True, **params})


@pytest.mark.parametrize("family", FAMILIES)
async def test_alone(family: str, folders: dict[str, Path], oracles: dict[str, Any]) -> None:
    async with opened(folders[family]) as caller:
        for i, prompt in enumerate(prompts(4)):
            (output,) = await caller.run(request(f"r{i}", prompt, max_tokens=40))
            check_greedy(oracles[family], prompt, output.token_ids)


@pytest.mark.parametrize("caching", [True, False], ids=["caching", "no caching"])
@pytest.mark.parametrize("family", FAMILIES)
async def test_among_32_with_shared_beginnings(
    family: str, caching: bool, folders: dict[str, Path], oracles: dict[str, Any]
) -> None:
    beginning = prompts(1, (40,), seed=5)[0]
    mixed = [(*beginning, *prompt) if i % 2 else prompt for i, prompt in enumerate(prompts(32))]
    async with opened(folders[family], prefix_caching=caching) as caller:
        outputs = await caller.run(*(request(f"r{i}", prompt, max_tokens=16) for i, prompt in enumerate(mixed)))
        assert caller.steps > 16 + 10  # the budget made chunks of the prompts
        hits = caller.engine.stats().prefix_tokens_hit
        assert (hits >= 14 * 32) if caching else hits == 0
    for prompt, output in zip(mixed, outputs, strict=True):
        check_greedy(oracles[family], prompt, output.token_ids)


@pytest.mark.parametrize("attention", ["native", "gather"])
@pytest.mark.parametrize("family", ["llama", "gemma2"])
async def test_across_preemptions(
    family: str, attention: str, folders: dict[str, Path], oracles: dict[str, Any]
) -> None:
    mixed = prompts(12, (30, 50), seed=2)
    async with opened(folders[family], num_blocks=18, attention=attention) as caller:
        outputs = await caller.run(*(request(f"r{i}", prompt, max_tokens=40) for i, prompt in enumerate(mixed)))
        assert caller.engine.stats().preemptions > 0
    for prompt, output in zip(mixed, outputs, strict=True):
        check_greedy(oracles[family], prompt, output.token_ids)


async def test_sampled_tokens_are_the_same_alone_in_company_and_across_preemptions(folders: dict[str, Path]) -> None:
    mixed = prompts(12, (30, 50), seed=3)
    wanted = [
        sampled(f"r{i}", prompt, max_tokens=40, seed=i, frequency_penalty=0.3, top_k=40 * (i % 2))
        for i, prompt in enumerate(mixed)
    ]
    async with opened(folders["llama"]) as caller:
        alone = [(await caller.run(one))[0].token_ids for one in wanted]
    async with opened(folders["llama"], num_blocks=18) as caller:
        together = [output.token_ids for output in await caller.run(*wanted)]
        assert caller.engine.stats().preemptions > 0
    assert together == alone
    assert len({tokens[:4] for tokens in alone}) == 12


@pytest.mark.parametrize("make", [request, sampled])
async def test_a_stream_goes_on_elsewhere_where_it_was(make: Any, folders: dict[str, Path]) -> None:
    (prompt,) = prompts(1, (33,), seed=4)
    params = {"max_tokens": 40, "ignore_eos": True, "repetition_penalty": 1.1}
    async with opened(folders["qwen3"]) as caller:
        (whole,) = await caller.run(make("same id", prompt, **params))
    for passed_on in (1, 15, 39):
        first = "".join(part.text for part in caller.outputs["same id"][:passed_on])
        async with opened(folders["qwen3"]) as elsewhere:
            (rest,) = await elsewhere.run(make("same id", prompt, resume=whole.token_ids[:passed_on], **params))
        assert whole.token_ids[:passed_on] + rest.token_ids == whole.token_ids
        assert first + rest.text == whole.text
        assert (rest.output_tokens, rest.finish_reason) == (40, "length")


async def test_a_resumed_request_that_is_complete_ends_at_once(folders: dict[str, Path]) -> None:
    async with opened(folders["llama"]) as caller:
        (output,) = await caller.run(request("a", (5, 6), resume=(7, 8, 9), max_tokens=3))
        assert (output.token_ids, output.finish_reason, output.output_tokens) == ((), "length", 3)


async def test_stop_strings_end_tokens_and_usage(folders: dict[str, Path]) -> None:
    (prompt,) = prompts(1, (33,))
    async with opened(folders["llama"]) as caller:
        (free,) = await caller.run(request("free", prompt, max_tokens=40, ignore_eos=True))
        stop = free.text[20:23]
        (stopped,) = await caller.run(request("stopped", prompt, max_tokens=40, ignore_eos=True, stop=(stop,)))
        assert stopped.text == free.text[: free.text.index(stop)]
        assert (stopped.finish_reason, stopped.stop_reason) == ("stop", stop)
        end = free.token_ids[9]
        (ended,) = await caller.run(request("ended", prompt, max_tokens=40, ignore_eos=True, stop_token_ids=(end,)))
        assert ended.token_ids == free.token_ids[: free.token_ids.index(end) + 1]
        assert (ended.finish_reason, ended.stop_reason) == ("stop", end)
        assert (ended.prompt_tokens, ended.cached_tokens) == (33, 32)


async def test_logprobs_come_for_every_token(folders: dict[str, Path], oracles: dict[str, Any]) -> None:
    prompt = prompts(1, (20,))[0]
    async with opened(folders["qwen2"]) as caller:
        (output,) = await caller.run(request("a", prompt, logprobs=3, max_tokens=8, ignore_eos=True))
    assert output.logprobs is not None and len(output.logprobs) == 8
    with torch.inference_mode():
        logits = oracles["qwen2"](torch.tensor([[*prompt, *output.token_ids]])).logits[0, len(prompt) - 1 : -1]
    scores = torch.log_softmax(logits, -1)
    for place, found in enumerate(output.logprobs):
        assert found.chosen == pytest.approx(float(scores[place, output.token_ids[place]]), abs=1e-4)
        assert [score for _, score in found.top] == pytest.approx(scores[place].topk(3).values.tolist(), abs=1e-4)


async def test_structured_output_among_others_and_across_a_move(folders: dict[str, Path]) -> None:
    schema = json.dumps({"type": "object", "properties": {"n": {"enum": [12345678, 87654321]}}, "required": ["n"],
                         "additionalProperties": False})  # fmt: skip
    made = {"structured": StructuredOutput(json=schema), "max_tokens": 60, "ignore_eos": False}
    prompt = prompts(1, (12,))[0]
    async with opened(folders["llama"]) as caller:
        free, bound = await caller.run(sampled("free", prompt), sampled("bound", prompt, **made))
        assert json.loads(bound.text)["n"] in {12345678, 87654321} and bound.finish_reason == "stop"
        assert len(free.token_ids) == 24
    async with opened(folders["llama"]) as elsewhere:
        (rest,) = await elsewhere.run(sampled("bound", prompt, resume=bound.token_ids[:5], **made))
    assert bound.token_ids[:5] + rest.token_ids == bound.token_ids


async def test_bad_requests_harm_themselves_only(folders: dict[str, Path]) -> None:
    async with opened(folders["llama"]) as caller:
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


async def test_an_aborted_request_frees_its_blocks_and_brings_no_more(folders: dict[str, Path]) -> None:
    async with opened(folders["llama"], prefix_caching=False) as caller:
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


async def test_a_deadline_ends_a_generation(folders: dict[str, Path]) -> None:
    async with opened(folders["llama"]) as caller:
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
    folders: dict[str, Path], oracles: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    mixed = prompts(6)
    with failing(monkeypatch, lambda plan: any(s.id == "r3" and s.output_length > 4 for s in plan.sequences)):
        async with opened(folders["llama"]) as caller:
            outputs = await caller.run(*(request(f"r{i}", prompt) for i, prompt in enumerate(mixed)))
    assert isinstance(outputs[3].error, ModelFailed) and "out of luck" in str(outputs[3].error)
    for i in (0, 1, 2, 4, 5):
        check_greedy(oracles["llama"], mixed[i], outputs[i].token_ids)


async def test_a_fault_that_passes_is_survived(
    folders: dict[str, Path], oracles: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    mixed, count = prompts(6), iter(range(10_000))
    with failing(monkeypatch, lambda plan: len(plan.sequences) > 1 and next(count) in {3, 4, 9}):
        async with opened(folders["llama"]) as caller:
            outputs = await caller.run(*(request(f"r{i}", prompt) for i, prompt in enumerate(mixed)))
    for prompt, output in zip(mixed, outputs, strict=True):
        check_greedy(oracles["llama"], prompt, output.token_ids)


async def test_an_engine_that_cannot_go_on_says_so(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    with failing(monkeypatch, lambda plan: len(plan.sequences) > 1):
        engine = await open_engine(folders["llama"], EngineOptions(**SMALL))
        for name in ("a", "b"):
            engine.submit(request(name, (1, 2)))
        with pytest.raises(ModelFailed, match="3 steps failed in a row: out of luck"):
            async with asyncio.timeout(30):
                async for _ in engine.outputs():
                    pass
        await engine.close()


async def test_bfloat16_runs(folders: dict[str, Path]) -> None:
    async with opened(folders["qwen3"], dtype="bfloat16") as caller:
        (output,) = await caller.run(request("a", prompts(1, (40,))[0], ignore_eos=True))
        assert len(output.token_ids) == 24 and len(tokenizer().decode(list(output.token_ids))) > 0
