"""Starts vLLM on a model's folder: the one place that imports it."""

import asyncio
import multiprocessing
import os
from pathlib import Path
from typing import Any

from headrace.v1.model_pb2 import TextSpec
from services.common.errors import FailedPrecondition
from services.worker.runtime.vllm.engine import VllmEngine
from services.worker.runtime.vllm.figures import Figures
from services.worker.runtime.vllm.guardian import Guardian

_LIMITS = ("max_model_len", "max_num_seqs", "max_num_batched_tokens", "block_size", "dtype", "tensor_parallel_size")
_FURTHER = ("enforce_eager", "gpu_memory_utilization", "kv_cache_dtype", "quantization", "pipeline_parallel_size")


async def open_vllm(folder: Path, text: TextSpec) -> "VllmEngine":
    """Starts vLLM on a folder, off the event loop; it takes a minute or more.

    Raises:
        FailedPrecondition: vLLM does not start; the message has its reason.
    """
    return await asyncio.to_thread(_open, folder, text)


def _open(folder: Path, text: TextSpec) -> "VllmEngine":
    # Standard output is the worker's word to who started it, and nobody asked for statistics to be sent anywhere.
    os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    from vllm import AsyncEngineArgs, SamplingParams  # noqa: PLC0415  # half a minute of imports
    from vllm.exceptions import VLLMClientError  # noqa: PLC0415
    from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams  # noqa: PLC0415
    from vllm.v1.engine.async_llm import AsyncLLM  # noqa: PLC0415

    from services.worker.llm.decoders import decoders  # noqa: PLC0415
    from services.worker.llm.loading import load_tokenizer  # noqa: PLC0415

    def parameters(arguments: dict[str, Any]) -> Any:
        if (structured := arguments.pop("structured_outputs", None)) is not None:
            arguments["structured_outputs"] = StructuredOutputsParams(**structured)
        return SamplingParams(**arguments, output_kind=RequestOutputKind.DELTA, detokenize=False)

    figures = Figures()
    before = set(multiprocessing.active_children())
    try:
        llm = AsyncLLM.from_engine_args(AsyncEngineArgs(**engine_arguments(folder, text)), stat_loggers=[figures])
    except Exception as error:  # whatever vLLM finds wrong; its processes' logs have more
        raise FailedPrecondition(f"vLLM does not start: {error}") from error
    figures.blocks = llm.vllm_config.cache_config.num_gpu_blocks or 0
    return VllmEngine(
        llm,
        decoders(load_tokenizer(folder)),
        parameters=parameters,
        refusals=(ValueError, VLLMClientError),
        max_model_len=llm.model_config.max_model_len,
        figures=figures,
        guardian=Guardian(process.pid or 0 for process in set(multiprocessing.active_children()) - before),
        device=llm.vllm_config.device_config.device_type,
    )


def engine_arguments(folder: Path, text: TextSpec) -> dict[str, Any]:
    """What the package says, as vLLM's engine arguments; pickles and code of the folder's are never run."""
    said = {name: value for name in _LIMITS if (value := getattr(text, name))}
    said |= {name: value for name in _FURTHER if (value := getattr(text.vllm, name))}
    if text.kv_cache_bytes:
        said["kv_cache_memory_bytes"] = text.kv_cache_bytes
    if text.HasField("prefix_caching"):
        said["enable_prefix_caching"] = text.prefix_caching
    return {
        **said,
        "model": str(folder),
        "load_format": "safetensors",
        "trust_remote_code": False,
        "scheduling_policy": "priority",
    }
