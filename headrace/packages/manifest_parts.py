"""The parts of model.yaml, a class for each key that has keys of its own."""

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from headrace.v1.model_pb2 import EmbeddingSpec, EnsembleStep, TextSpec, VllmSpec

_SIZES = {"": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "KB": 10**3, "MB": 10**6, "GB": 10**9}

# Of priority, for one model's requests.
MOST_LEVELS = 100


def byte_count(value: Any) -> Any:
    """ "512MiB" → 536870912."""
    if isinstance(value, str):
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]i?B|)", value.strip())
        if match is None:
            raise ValueError('expected a number of bytes, or one with a unit like "512MiB"')
        return int(float(match[1]) * _SIZES[match[2]])
    return value


def _text(value: Any) -> Any:
    """A version is a number or an alias: 3 → "3"."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


# An unknown key is an error, and "3" is no number.
STRICT = ConfigDict(extra="forbid", strict=True)


class Part(BaseModel):
    """What all parts are."""

    model_config = STRICT


class ManifestError(Exception):
    """A key does not fit the graph; `keys` leads to it."""

    def __init__(self, message: str, *keys: str | int) -> None:
        super().__init__(message)
        self.keys = keys


class Tensor(Part):
    """What the graph leaves open about an input or output."""

    shape: list[Annotated[int, Field(ge=-1)]] | None = None


class Batching(Part):
    """How requests are grouped."""

    max_batch_size: Annotated[int, Field(ge=0, le=65_536)] | None = None
    max_queue_delay_ms: Annotated[float, Field(ge=0, le=10_000)] | None = None
    max_queue_delay_us: Annotated[int, Field(ge=0, le=10_000_000)] | None = None
    padding: bool = False
    padding_value: float = 0.0


class Queue(Part):
    """What may wait, and for how long."""

    max_requests: Annotated[int, Field(ge=1)] | None = None
    default_timeout_ms: Annotated[int, Field(ge=1)] | None = None
    max_attempts: Annotated[int, Field(ge=1, le=100)] | None = None
    requests_per_second: Annotated[float, Field(gt=0)] | None = None
    burst: Annotated[int, Field(ge=1)] | None = None
    priority_levels: Annotated[int, Field(ge=1, le=MOST_LEVELS)] | None = None
    default_priority_level: Annotated[int, Field(ge=1)] | None = None


class Warmup(Part):
    """What runs before the worker says ready."""

    disabled: bool = False
    batch_sizes: list[Annotated[int, Field(ge=1)]] = []
    shapes: dict[str, list[Annotated[int, Field(ge=0)]]] = {}


class Llm(Part):
    """How a language model's engine is set up; names are vLLM's."""

    max_model_len: Annotated[int, Field(ge=1)] | None = None
    max_num_seqs: Annotated[int, Field(ge=1, le=65_536)] | None = None
    max_num_batched_tokens: Annotated[int, Field(ge=1)] | None = None
    kv_cache_memory: Annotated[int, BeforeValidator(byte_count), Field(ge=1)] | None = None
    block_size: Annotated[int, Field(ge=1, le=1024)] | None = None
    prefix_caching: bool | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] | None = None
    tensor_parallel_size: Annotated[int, Field(ge=1)] | None = None
    cuda_graphs: bool | None = None

    def apply(self, text: TextSpec) -> None:
        """Puts what is said over what the model's own files say."""
        for name in type(self).model_fields:
            if (value := getattr(self, name)) is not None:
                setattr(text, "kv_cache_bytes" if name == "kv_cache_memory" else name, value)


class Vllm(Part):
    """Further engine arguments of vLLM's, by their names. None of them runs code of the model's or loads pickles."""

    enforce_eager: bool | None = None
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] | None = None
    kv_cache_dtype: Annotated[str, Field(pattern="^[a-z0-9_]+$")] | None = None
    quantization: Annotated[str, Field(pattern="^[a-z0-9_-]+$")] | None = None
    pipeline_parallel_size: Annotated[int, Field(ge=1)] | None = None

    def apply(self, spec: VllmSpec) -> None:
        """Puts what is said into the spec."""
        for name in type(self).model_fields:
            if (value := getattr(self, name)) is not None:
                setattr(spec, name, value)


class Embedding(Part):
    """How texts become vectors."""

    pooling: Literal["mean", "last", "cls"] | None = None
    normalize: bool | None = None
    max_length: Annotated[int, Field(ge=1)] | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] | None = None

    def apply(self, spec: EmbeddingSpec) -> None:
        """Puts what is said over what the model's own files say. Raises ManifestError."""
        if self.max_length is not None and self.max_length > spec.max_length:
            raise ManifestError(f"the model has {spec.max_length} positions for tokens", "embedding", "max_length")
        for name in type(self).model_fields:
            if (value := getattr(self, name)) is not None:
                setattr(spec, name, value)


class Tokenizer(Part):
    """How texts become tokens, for `runtime: tokenizer`."""

    max_length: Annotated[int, Field(ge=1)] | None = None
    truncation: bool = False
    token_type_ids: bool = False


class Step(Part):
    """One model of an ensemble; names are those of Triton's ensemble_scheduling."""

    model: Annotated[str, Field(min_length=1)]
    version: Annotated[str, BeforeValidator(_text)] = ""
    input_map: dict[str, str] = {}
    output_map: dict[str, str] = {}

    def proto(self) -> EnsembleStep:
        """As the spec has it."""
        return EnsembleStep(
            model=self.model, version=self.version, input_map=self.input_map, output_map=self.output_map
        )


class OpenAI(Part):
    """The OpenAI-compatible server that runs the model, for `runtime: openai`."""

    base_url: Annotated[str, Field(pattern="^https?://")]
    model: str
    api_key_env: str = ""
