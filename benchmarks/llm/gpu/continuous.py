"""transformers' continuous batching as a subject, on the same weights."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from transformers import ContinuousBatchingConfig, GenerationConfig, PreTrainedModel

from benchmarks.llm.gpu.loads import PATIENCE, Figures, Load, figures
from benchmarks.llm.gpu.memory import release


@contextmanager
def manager_on(model: PreTrainedModel) -> Iterator[Any]:
    """A running manager with its own defaults, which are sized by the device's memory. It takes the model over."""
    release()
    taken: Any = model
    taken.set_attn_implementation("sdpa")  # it takes flash attention by itself, where that is installed
    config = GenerationConfig(do_sample=False, eos_token_id=-1, max_new_tokens=512)
    on_cpu = model.device.type == "cpu"  # where there is no memory to go by
    blocks = ContinuousBatchingConfig(num_blocks=128, max_batch_tokens=512) if on_cpu else ContinuousBatchingConfig()
    with taken.continuous_batching_context_manager(config, continuous_batching_config=blocks) as manager:
        yield manager


def run(manager: Any, load: Load) -> Figures:
    """Submits a load and waits for its end."""
    began = time.perf_counter()
    left = {
        manager.add_request(list(prompt), max_new_tokens=load.outputs, record_timestamps=True)
        for prompt in load.prompts
    }
    arrivals: list[list[float]] = []
    while left:
        if time.perf_counter() - began > PATIENCE:
            raise TimeoutError(f"{len(left)} of {len(load.prompts)} requests are not done after {PATIENCE} s")
        result = manager.get_result(timeout=1)
        if result is None:
            if not manager.is_running():
                raise RuntimeError("transformers' manager has stopped; its log says why")
            continue
        if result.error:
            raise RuntimeError(result.error)
        if result.is_finished():
            left.discard(result.request_id)
            arrivals.append(result.timestamps)
    if wrong := [len(each) for each in arrivals if len(each) != load.outputs]:
        raise AssertionError(f"{len(wrong)} requests brought {wrong[0]} tokens instead of {load.outputs}")
    return figures(began, arrivals)
