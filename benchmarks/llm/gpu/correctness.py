"""Whether the engine computes on this device what transformers computes."""

from pathlib import Path
from typing import Any

import torch

from benchmarks.llm.gpu import kernels, loads, native
from services.worker.llm import loading
from services.worker.llm.attention import hook
from services.worker.llm.options import AttentionName, EngineOptions
from tests.support.llm_models import VOCABULARY, check_greedy, oracle, save_model, until_end

FAMILIES = ("llama", "gemma2", "qwen3")
_OPTIONS = EngineOptions(dtype="float32", num_blocks=400, max_num_seqs=32, max_num_batched_tokens=96, max_model_len=512)
# The largest difference between kernels that is rounding: outputs are of size 1. Each case compiles for seconds, that
# of float32 longest, so that there is one.
_CHECKS = (
    ("llama", torch.float32, 1e-4),
    *((label, torch.bfloat16, 5e-2) for label in ("llama", "gemma", "odd")),
)


async def greedy(folder: Path, device: torch.device) -> dict[str, Any]:
    """Greedy tokens of small float32 models, alone and among many, are generate()'s on the same device.

    With CUDA graphs and without; tokens that are drawn are the same with both.

    Raises:
        AssertionError: they are not, by more than a near tie.
    """
    checked = 0
    for family in FAMILIES:
        saved = save_model(folder / family, family)
        hook.register()
        loaded = loading.load(saved, _OPTIONS, attention=hook.NAME, device=str(device))
        reference = oracle(saved).to(device)
        drawn = []
        for graphs in (False, True):
            async with native.engine_on(loaded, _OPTIONS, graphs=graphs) as engine:
                for callers in (1, 7):
                    load = loads.make(callers, 40, 24, VOCABULARY, seed=callers)
                    answer = await native.run(engine, load, f"{callers}")
                    for prompt, tokens in zip(load.prompts, answer.tokens, strict=True):
                        check_greedy(reference, prompt, until_end(tokens))
                        checked += 1
                drawn.append((await native.run(engine, load, "drawn", temperature=0.9)).tokens)
        assert drawn[0] == drawn[1], f"{family}: tokens drawn with graphs differ from those without"
    return {"sequences equal to generate()": checked}


def attention(long_context: int, device: torch.device) -> dict[str, float]:
    """The kernel of this device against the gather kernel: the largest difference of each case.

    Raises:
        AssertionError: one is larger than rounding.
    """
    name: AttentionName = "triton" if device.type == "cuda" else "native"
    found: dict[str, float] = {}
    cases = kernels.cases(long_context)
    for label, dtype, most in _CHECKS:
        found[f"{name}, {label}, {dtype}"] = worst = kernels.difference(name, cases[label], dtype, device)
        assert worst < most, f"{name} differs from gather by {worst} on {label} in {dtype}; expected under {most}"
    return found
