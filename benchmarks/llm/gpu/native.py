"""The native engine as a subject, with a model that is in memory already."""

import asyncio
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from benchmarks.llm.gpu.loads import PATIENCE, Figures, Load, figures
from benchmarks.llm.gpu.memory import release
from services.worker.llm.engine import Engine
from services.worker.llm.graphs import eager
from services.worker.llm.loading import LanguageModel
from services.worker.llm.options import EngineOptions
from services.worker.llm.request import GenerationRequest, SamplingParams
from services.worker.llm.runner import Runner
from services.worker.llm.stepping import Stepper
from services.worker.llm.structured import Grammars
from tests.support.llm_models import tokenizer


@dataclass(frozen=True, slots=True)
class Answer:
    """One load's outcome: the token ids of each caller, and when they came."""

    tokens: list[list[int]]
    figures: Figures


@asynccontextmanager
async def engine_on(
    language_model: LanguageModel, options: EngineOptions, *, graphs: bool = False
) -> AsyncIterator[Engine]:
    """An engine as `open_engine` makes it of a folder.

    Args:
        graphs: whether decode steps are CUDA graphs; without CUDA they have fixed sizes as these do.
    """
    on_cuda = language_model.device.type == "cuda"
    options = replace(options, cuda_graphs=graphs and on_cuda)
    capture = eager if graphs and not on_cuda else None
    release()
    thread = ThreadPoolExecutor(1, thread_name_prefix="llm-engine")
    words = tokenizer()

    def made() -> Stepper:
        grammars = Grammars(words, language_model.vocab_size, language_model.eos_token_ids)
        return Stepper(Runner(language_model, options, grammars, capture=capture), words)

    loop = asyncio.get_running_loop()
    try:
        engine = Engine(await loop.run_in_executor(thread, made), thread, loop, str(language_model.device))
        try:
            yield engine
        finally:
            await engine.close()
    finally:
        thread.shutdown()


async def run(engine: Engine, load: Load, name: str, temperature: float = 0) -> Answer:
    """Submits a load, waits for its end, and keeps the books.

    Args:
        name: no load before on this engine had it.
    """
    places = {f"{name} {i}": i for i in range(len(load.prompts))}
    tokens: list[list[int]] = [[] for _ in places]
    arrivals: list[list[float]] = [[] for _ in places]
    params = SamplingParams(temperature=temperature, seed=1, max_tokens=load.outputs, ignore_eos=True)
    began, left = time.perf_counter(), len(places)
    for request_id, prompt in zip(places, load.prompts, strict=True):
        engine.submit(GenerationRequest(id=request_id, prompt=prompt, params=params, tenant=name))
    async with asyncio.timeout(PATIENCE):
        async for outputs in engine.outputs():
            now = time.perf_counter()
            for output in outputs:
                if output.error is not None:
                    raise output.error
                tokens[places[output.id]].extend(output.token_ids)
                arrivals[places[output.id]].extend([now] * len(output.token_ids))
                left -= output.finish_reason is not None
            if not left:
                break
    if wrong := [len(each) for each in tokens if len(each) != load.outputs]:
        raise AssertionError(f"{len(wrong)} requests brought {wrong[0]} tokens instead of {load.outputs}")
    return Answer(tokens, figures(began, arrivals))
