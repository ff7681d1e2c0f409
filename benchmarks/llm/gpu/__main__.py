"""All that issue 3 asks of a GPU, in one command of under eight minutes:

    python -m benchmarks.llm.gpu                       # on CUDA: an 8-billion-parameter Llama, random bfloat16 weights
    python -m benchmarks.llm.gpu --tiny --device cpu   # a dry run through every line, in seconds

Needs torch, triton, transformers, tokenizers, llguidance, numpy and PyYAML, and no network. In this order: greedy
tokens beside transformers', with CUDA graphs and without; the Triton kernel beside the gather kernel, and how fast it
reads; the memory's speed; one sequence's decoding as a fraction of what that speed allows, then 1 to 256 callers with
times to first token and between tokens, without CUDA graphs and with them; the same loads on transformers' continuous
batching. What is found is printed as it comes, at the end as a table, and written to gpu.json under $OUT if that is
set. A part that fails is noted and the others go on; the exit status says whether all ran.
"""

import argparse
import asyncio
import os
import sys
import tempfile
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from benchmarks.llm.gpu import continuous, correctness, kernels, loads, memory, models, native
from benchmarks.llm.gpu.report import Report, table
from services.worker.llm.engine import Engine
from services.worker.llm.loading import LanguageModel
from services.worker.llm.options import EngineOptions


class Run:
    """The parts, in order."""

    def __init__(self, scale: models.Scale, device: torch.device, report: Report) -> None:
        self._scale, self._device, self._report = scale, device, report
        self._seed = 0

    async def all(self) -> None:
        """Everything."""
        scale, device, part = self._scale, self._device, self._report.part
        with tempfile.TemporaryDirectory(prefix="headrace-gpu-") as folder:
            await part("greedy", lambda: correctness.greedy(Path(folder), device))
        await part("attention", self._attention)
        await part("attention speed", self._attention_speed)
        speed = await part("memory bytes/s", self._memory)
        # As one would serve it: a decode step is recorded for contexts of this length, though the loads' are shorter.
        model = models.random_model(scale, device, min(8192, scale.config.max_position_embeddings))
        limit = max(speed.values()) / models.step_bytes(model.model) if speed else 0.0
        await self._native("headrace", model, limit, graphs=False)
        await self._native("headrace, CUDA graphs", model, limit, graphs=True)
        await part("transformers", lambda: self._continuous(model))

    async def _attention(self) -> dict[str, Any]:
        return correctness.attention(self._scale.long_context, self._device)

    async def _attention_speed(self) -> dict[str, Any]:
        found = {}
        for sequences in (1, max(self._scale.callers)):
            context = self._scale.long_context // (1 if sequences == 1 else 16)
            speed = kernels.decode_speed(sequences, context, self._scale.dtype, self._device)
            found.update({f"{sequences} x {context}, {key}": value for key, value in speed.items()})
        return found

    async def _memory(self) -> dict[str, Any]:
        return dict(memory.bandwidth(self._device, self._scale.buffer))

    async def _native(self, name: str, model: LanguageModel, limit: float, *, graphs: bool) -> None:
        options = EngineOptions(kv_memory=self._scale.kv_memory)

        async def loaded() -> dict[str, Any]:
            async with native.engine_on(model, options, graphs=graphs) as engine:
                await self._report.part(f"{name}, one sequence", partial(self._lone, engine, limit))
                for callers in self._scale.callers:
                    await self._report.part(f"{name}, {callers} callers", partial(self._load, name, engine, callers))
            return {}

        await self._report.part(name, loaded)

    async def _lone(self, engine: Engine, limit: float) -> dict[str, Any]:
        await self._answer(engine, self._made(1, 4))  # what is compiled or tuned at first use
        rate = (await self._answer(engine, self._made(1, self._scale.lone_outputs))).decode_per_second
        return {"decode_tokens_per_second": rate, "limit": limit, "fraction": rate / limit if limit else 0.0}

    async def _load(self, name: str, engine: Engine, callers: int) -> dict[str, Any]:
        await self._answer(engine, self._made(callers, 2))
        found = await self._answer(engine, self._made(callers, self._scale.outputs))
        return {"engine": name, "callers": callers, **asdict(found)}

    async def _answer(self, engine: Engine, load: loads.Load) -> loads.Figures:
        return (await native.run(engine, load, f"load {self._seed}")).figures

    async def _continuous(self, model: LanguageModel) -> dict[str, Any]:
        with continuous.manager_on(model.model) as manager:
            for callers in self._scale.callers:

                async def measured(callers: int = callers) -> dict[str, Any]:
                    continuous.run(manager, self._made(callers, 2))
                    found = continuous.run(manager, self._made(callers, self._scale.outputs))
                    return {"engine": "transformers", "callers": callers, **asdict(found)}

                await self._report.part(f"transformers, {callers} callers", measured)
        return {}

    def _made(self, callers: int, outputs: int) -> loads.Load:
        self._seed += 1
        return loads.make(callers, self._scale.prompt, outputs, self._scale.config.vocab_size, self._seed)


def main() -> int:
    """Runs everything; 0 if nothing failed and nothing was left out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="a small model; the figures mean nothing")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--seconds", type=float, default=420, help="after this much no further part begins")
    arguments = parser.parse_args()
    disable_progress_bar()
    set_verbosity_error()
    device = torch.device(arguments.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("torch sees no GPU here; --tiny --device cpu is a dry run", file=sys.stderr)
        return 2
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "a CPU"
    print(f"{name}, torch {torch.__version__}", flush=True)
    out = os.environ.get("OUT")
    report = Report(Path(out) / "gpu.json" if out else None, arguments.seconds)
    asyncio.run(Run(models.tiny() if arguments.tiny else models.full(), device, report).all())
    print(f"\n{table(report.parts)}")
    return 0 if report.complete else 1


if __name__ == "__main__":
    sys.exit(main())
