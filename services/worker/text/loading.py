"""From a version's files to a language model in memory, by the runtime that its spec names."""

import asyncio
from collections.abc import Awaitable, Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from headrace.v1.model_pb2 import ModelSpec, TextSpec
from services.common.errors import FailedPrecondition
from services.worker.text.model import TextModel

RUNTIMES = ("llm", "vllm", "openai")


def text_opener(spec: ModelSpec, threads: int) -> Callable[[Path], Awaitable[TextModel]]:
    """Opens the model of a folder. Raises FailedPrecondition where it does not load; the message says why."""

    async def open_model(folder: Path) -> TextModel:
        try:
            if spec.runtime == "llm":
                return await _native(folder, spec.text, threads)
            if spec.runtime == "vllm":
                return await _vllm(folder, spec.text)
            if spec.runtime == "openai":
                from services.worker.runtime.openai import RemoteEngine, RemotePrompts  # noqa: PLC0415

                return TextModel(RemoteEngine(spec.text.remote, spec.text.max_num_seqs), RemotePrompts(), "remote")
        except ImportError as error:
            raise FailedPrecondition(
                f"runtime '{spec.runtime}' is not installed on this worker ({error}); pip install"
                f" 'headrace[worker-{spec.runtime}]'"
            ) from error
        raise FailedPrecondition(f"no runtime '{spec.runtime}' for language models; known are {', '.join(RUNTIMES)}")

    return open_model


async def _native(folder: Path, text: TextSpec, threads: int) -> TextModel:
    """The native engine; torch and transformers are imported by whoever needs them.

    In a thread: they take seconds, in which this worker's other models must go on.
    """
    for module in ("services.worker.llm.engine", "services.worker.text.prompts"):
        await asyncio.to_thread(import_module, module)
    from services.worker.llm.engine import open_engine  # noqa: PLC0415
    from services.worker.llm.options import EngineOptions  # noqa: PLC0415
    from services.worker.text.prompts import HuggingFacePrompts  # noqa: PLC0415

    prompts = await asyncio.to_thread(HuggingFacePrompts, folder)
    engine = await open_engine(folder, EngineOptions(threads=threads, **_options(text)))
    return TextModel(engine, prompts, engine.device)


async def _vllm(folder: Path, text: TextSpec) -> TextModel:
    """vLLM, where it is installed."""
    if find_spec("vllm") is None:
        raise ModuleNotFoundError("No module named 'vllm'")
    from services.worker.runtime.vllm.opening import open_vllm  # noqa: PLC0415
    from services.worker.text.prompts import HuggingFacePrompts  # noqa: PLC0415

    prompts = await asyncio.to_thread(HuggingFacePrompts, folder)
    engine = await open_vllm(folder, text)
    return TextModel(engine, prompts, engine.device)


def _options(text: TextSpec) -> dict[str, Any]:
    """What the package says; what it leaves open is the engine's to choose."""
    said: dict[str, Any] = {
        name: value
        for name in (
            "max_model_len",
            "max_num_seqs",
            "max_num_batched_tokens",
            "block_size",
            "dtype",
            "tensor_parallel_size",
            "cuda_graphs",
        )
        if (value := getattr(text, name))
    }
    if text.kv_cache_bytes:
        said["kv_memory"] = text.kv_cache_bytes
    if text.HasField("prefix_caching"):
        said["prefix_caching"] = text.prefix_caching
    return said
