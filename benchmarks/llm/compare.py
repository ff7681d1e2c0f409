"""Output tokens per second of the native engine beside transformers' own ways to generate, interleaved.

    python -m benchmarks.llm.compare --workloads ABC --rounds 3 --dtype float32 [--subjects headrace,path,vllm]

Subjects: `headrace` (the engine alone, in this process), `path` (the same engine behind client, gateway and queue),
`vllm` (in its own process, from .venv-vllm), transformers' `continuous` batching and its `generate`. Every subject has
the same weights, the same threads, greedy sampling and end tokens ignored. A round runs each subject once; the table
shows the median and the best of the rounds. `generate` pads all prompts to the longest and runs until the longest
output is there; only the tokens that were asked for count.
"""

import argparse
import asyncio
import os
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, ContinuousBatchingConfig, GenerationConfig
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from benchmarks.llm.path import WholePath
from benchmarks.llm.vllm import Vllm
from benchmarks.llm.workloads import Work, save_100m, workloads
from services.worker.llm.engine import Engine, open_engine
from services.worker.llm.options import EngineOptions
from services.worker.llm.request import GenerationRequest, SamplingParams

Subject = Callable[[list[Work]], int]


class Native:
    """The engine alone, through its asynchronous port."""

    def __init__(self, folder: Path, dtype: Any, threads: int) -> None:
        self._runner = asyncio.Runner()
        self._engine: Engine = self._runner.run(open_engine(folder, EngineOptions(dtype=dtype, threads=threads)))
        self._rounds = 0

    def __call__(self, works: list[Work]) -> int:
        """The tokens that came. Each round is a tenant of its own, which finds nothing of the others'."""
        self._rounds += 1
        return self._runner.run(self._generate(works, f"round {self._rounds}"))

    async def _generate(self, works: list[Work], tenant: str) -> int:
        for i, work in enumerate(works):
            params = SamplingParams(temperature=0, max_tokens=work.outputs, ignore_eos=True)
            self._engine.submit(GenerationRequest(id=f"{tenant} {i}", prompt=work.prompt, params=params, tenant=tenant))
        tokens = ended = 0
        async for outputs in self._engine.outputs():
            tokens += sum(len(output.token_ids) for output in outputs)
            ended += sum(output.finish_reason is not None for output in outputs)
            if ended == len(works):
                break
        return tokens

    def close(self) -> None:
        """Ends the engine."""
        self._runner.run(self._engine.close())
        self._runner.close()


def static(model: Any) -> Subject:
    """generate() on one padded batch."""

    @torch.inference_mode()
    def run(works: list[Work]) -> int:
        longest = max(len(work.prompt) for work in works)
        ids = torch.tensor([[1] * (longest - len(work.prompt)) + list(work.prompt) for work in works])
        mask = torch.tensor([[0] * (longest - len(work.prompt)) + [1] * len(work.prompt) for work in works])
        count = max(work.outputs for work in works)
        model.generate(
            ids, attention_mask=mask, do_sample=False, pad_token_id=1, max_new_tokens=count, min_new_tokens=count
        )
        return sum(work.outputs for work in works)

    return run


def continuous(model: Any) -> Subject:
    """transformers' ContinuousBatchingManager."""

    def run(works: list[Work]) -> int:
        config = GenerationConfig(do_sample=False, eos_token_id=-1, max_new_tokens=512)
        blocks = ContinuousBatchingConfig(num_blocks=128, max_batch_tokens=512)
        tokens = 0
        with model.continuous_batching_context_manager(config, continuous_batching_config=blocks) as manager:
            names = [manager.add_request(list(work.prompt), max_new_tokens=work.outputs) for work in works]
            left = set(names)
            while left:
                result = manager.get_result(timeout=1)
                if result is not None and result.is_finished():
                    tokens += len(result.generated_tokens)
                    left.discard(result.request_id)
        return tokens

    return run


def main() -> None:
    """Measures and prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workloads", default="ABC")
    parser.add_argument("--subjects", default="headrace,continuous,generate")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--folder", type=Path, default=Path(".headrace/benchmarks"))
    arguments = parser.parse_args()
    disable_progress_bar()
    set_verbosity_error()
    torch.set_num_threads(arguments.threads)
    dtype = getattr(torch, arguments.dtype)
    folder = save_100m(arguments.folder / f"llama-100m-{arguments.dtype}", dtype)
    chosen = arguments.subjects.split(",")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
    makers: dict[str, Callable[[], Any]] = {
        "headrace": lambda: Native(folder, arguments.dtype, arguments.threads),
        "path": lambda: WholePath(folder, arguments.threads),
        "vllm": lambda: Vllm(folder, arguments.dtype, arguments.threads),
        "continuous": lambda: continuous(model),
        "generate": lambda: static(model),
    }
    print(
        f"{arguments.dtype}, {arguments.threads} threads, {arguments.rounds} rounds: output tokens/s, median (best)\n"
    )
    print("| workload | " + " | ".join(chosen) + " |\n|" + "---|" * (len(chosen) + 1))
    with ExitStack() as parts:
        subjects: dict[str, Subject] = {}
        for name in chosen:
            subjects[name] = subject = makers[name]()
            if hasattr(subject, "close"):
                parts.callback(subject.close)
        for name in arguments.workloads:
            rates = measured(workloads()[name], subjects, arguments.rounds)
            cells = (f"{statistics.median(rates[subject]):.0f} ({max(rates[subject]):.0f})" for subject in chosen)
            print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def measured(works: list[Work], subjects: dict[str, Subject], rounds: int) -> dict[str, list[float]]:
    """Tokens per second of each subject in each round, after a short warm-up of each."""
    wanted = sum(work.outputs for work in works)
    for subject in subjects.values():
        subject([Work(work.prompt, 2) for work in works])
    rates: dict[str, list[float]] = {name: [] for name in subjects}
    for _ in range(rounds):
        for name, subject in subjects.items():
            began = time.perf_counter()
            tokens = subject(works)
            rates[name].append(tokens / (time.perf_counter() - began))
            assert tokens == wanted, f"{name} brought {tokens} tokens of {wanted}"
    return rates


if __name__ == "__main__":
    main()
