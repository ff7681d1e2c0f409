"""A native engine for the tests, its callers, and requests for it."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from services.worker.llm.engine import Engine, open_engine
from services.worker.llm.options import EngineOptions
from services.worker.llm.request import GenerationRequest, SamplingParams, TokenOutput

SMALL: dict[str, Any] = {"num_blocks": 400, "max_num_seqs": 32, "max_num_batched_tokens": 96, "threads": 1}


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
