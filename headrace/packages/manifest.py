"""What model.yaml may say: its keys, their types, and what each does to the spec that the graph implies."""

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, Field

from headrace.packages.manifest_parts import (
    STRICT,
    Batching,
    Embedding,
    Llm,
    ManifestError,
    OpenAI,
    Queue,
    Step,
    Tensor,
    Tokenizer,
    Vllm,
    Warmup,
    byte_count,
)
from headrace.v1.model_pb2 import ModelSpec, TensorSpec

# Where the graph has a batch axis and nobody said how long a batch may be.
DEFAULT_MAX_BATCH_SIZE = 64
# Runtimes whose models may be run from several threads at a time.
CONCURRENT = ("onnx", "identity")
MOST_INSTANCES = 64


class Manifest(BaseModel):
    """All keys of model.yaml; every one is optional."""

    model_config = STRICT

    runtime: (
        Literal["onnx", "torch", "llm", "vllm", "openai", "embedding", "tokenizer", "identity", "ensemble"] | None
    ) = None
    entry: str | None = None
    description: str = ""
    inputs: dict[str, Tensor] = {}
    outputs: dict[str, Tensor] = {}
    batching: Batching = Batching()
    queue: Queue = Queue()
    warmup: Warmup = Warmup()
    memory: Annotated[int, BeforeValidator(byte_count), Field(ge=0)] = 0
    instances: Annotated[int, Field(ge=1, le=MOST_INSTANCES)] = 1
    parameters: dict[str, str] = {}
    llm: Llm = Llm()
    vllm: Vllm = Vllm()
    embedding: Embedding = Embedding()
    openai: OpenAI | None = None
    tokenizer: Tokenizer = Tokenizer()
    steps: list[Step] = []

    def apply_text(self, spec: ModelSpec) -> None:
        """Puts what the manifest says into a language model's spec. Raises ManifestError for what is not for those."""
        for key, default in (("inputs", {}), ("outputs", {}), ("batching", Batching()), ("warmup", Warmup())):
            if getattr(self, key) != default:
                raise ManifestError(
                    "this is for models of tensors; language models are batched continuously: see the key llm", key
                )
        self.llm.apply(spec.text)
        if self.llm.cuda_graphs is not None and spec.runtime == "vllm":
            raise ManifestError(
                "vLLM records graphs by itself; expected vllm.enforce_eager, or nothing", "llm.cuda_graphs"
            )
        if self.vllm != Vllm():
            if spec.runtime != "vllm":
                raise ManifestError("these are vLLM's; set `runtime: vllm`, too", "vllm")
            self.vllm.apply(spec.text.vllm)
        self._apply_common(spec)

    def apply_ensemble(self, spec: ModelSpec) -> None:
        """Puts the steps and what is declared into an ensemble's spec. Raises ManifestError."""
        for key, default in (("warmup", Warmup()), ("memory", 0)):
            if getattr(self, key) != default:
                raise ManifestError("an ensemble is nothing but its models; say it in their packages", key)
        for declared, tensors in ((self.inputs, spec.inputs), (self.outputs, spec.outputs)):
            tensors.extend(TensorSpec(name=name, shape=tensor.shape) for name, tensor in declared.items())
        spec.ensemble.steps.extend(step.proto() for step in self.steps)
        if self.batching.max_batch_size is not None:
            spec.batching.max_batch_size = self.batching.max_batch_size
        self._apply_delay_and_padding(spec)
        self._apply_common(spec)

    def apply(self, spec: ModelSpec) -> None:
        """Puts what the manifest says over what the graph says. Raises ManifestError where the two cannot be joined."""
        _narrow("inputs", self.inputs, {tensor.name: tensor for tensor in spec.inputs})
        _narrow("outputs", self.outputs, {tensor.name: tensor for tensor in spec.outputs})
        self._apply_batching(spec)
        self._apply_warmup(spec)
        if spec.HasField("embedding"):
            self.embedding.apply(spec.embedding)
        self._apply_common(spec)

    def _apply_common(self, spec: ModelSpec) -> None:
        if self.embedding != Embedding() and not spec.HasField("embedding"):
            raise ManifestError("this is for runtime embedding; set `runtime: embedding`, too", "embedding")
        if self.tokenizer != Tokenizer() and not spec.HasField("tokenizer"):
            raise ManifestError("this is for runtime tokenizer; set `runtime: tokenizer`, too", "tokenizer")
        if self.steps and not spec.HasField("ensemble"):
            raise ManifestError("steps are for ensembles; set `runtime: ensemble`, too", "steps")
        if self.instances > 1 and spec.runtime not in CONCURRENT:
            raise ManifestError(
                f"runtime {spec.runtime} runs one batch at a time; instances are for"
                f" {' and '.join(CONCURRENT)}: run more workers instead",
                "instances",
            )
        spec.instances = self.instances
        spec.queue.max_requests = self.queue.max_requests or 0
        spec.queue.default_timeout_ms = self.queue.default_timeout_ms or 0
        spec.queue.max_attempts = self.queue.max_attempts or 0
        if self.queue.burst and not self.queue.requests_per_second:
            raise ManifestError("a burst needs a rate; set queue.requests_per_second, too", "queue", "burst")
        spec.queue.requests_per_second = self.queue.requests_per_second or 0.0
        spec.queue.burst = self.queue.burst or 0
        self._apply_levels(spec)
        spec.memory_bytes = self.memory
        spec.description = self.description
        spec.parameters.update(self.parameters)

    def _apply_levels(self, spec: ModelSpec) -> None:
        levels, default = self.queue.priority_levels or 0, self.queue.default_priority_level or 0
        if levels and (spec.HasField("text") or spec.HasField("ensemble")):
            raise ManifestError(
                "levels are for models that run batches of tensors; requests to language models bring a `priority` of"
                " any size, and an ensemble's steps run as one",
                "queue",
                "priority_levels",
            )
        if default > levels or (levels and not default):
            raise ManifestError(
                f"requests that name no level need one; expected 1, the highest, to {levels}"
                if levels
                else "there are no levels to choose from; set queue.priority_levels, too",
                "queue",
                "default_priority_level",
            )
        spec.queue.priority_levels, spec.queue.default_priority_level = levels, default

    def _apply_batching(self, spec: ModelSpec) -> None:
        batching = self.batching
        free = all(tensor.shape and tensor.shape[0] == -1 for tensor in [*spec.inputs, *spec.outputs])
        possible = spec.batching.max_batch_size if free else 0
        if batching.max_batch_size and not possible:
            raise ManifestError(
                "the graph has no free first axis shared by all inputs and outputs; export it with a dynamic batch"
                " axis, or leave the key out",
                "batching",
                "max_batch_size",
            )
        spec.batching.max_batch_size = possible if batching.max_batch_size is None else batching.max_batch_size
        self._apply_delay_and_padding(spec)

    def _apply_delay_and_padding(self, spec: ModelSpec) -> None:
        batching = self.batching
        if batching.max_queue_delay_ms is not None and batching.max_queue_delay_us is not None:
            raise ManifestError(
                "the delay is given twice; expected max_queue_delay_ms or max_queue_delay_us",
                "batching",
                "max_queue_delay_us",
            )
        spec.batching.max_queue_delay_us = batching.max_queue_delay_us or round(
            (batching.max_queue_delay_ms or 0.0) * 1000
        )
        spec.batching.padding = batching.padding
        spec.batching.padding_value = batching.padding_value

    def _apply_warmup(self, spec: ModelSpec) -> None:
        spec.warmup.disabled = self.warmup.disabled
        limit = spec.batching.max_batch_size or 1
        for index, size in enumerate(self.warmup.batch_sizes):
            if size > limit:
                raise ManifestError(f"{size} is over the largest batch, {limit}", "warmup", "batch_sizes", index)
            spec.warmup.batch_sizes.append(size)
        inputs = {tensor.name: tensor for tensor in spec.inputs}
        for name, dims in self.warmup.shapes.items():
            keys = ("warmup", "shapes", name)
            if name not in inputs:
                raise ManifestError(f"no such input; the model takes {', '.join(inputs) or 'none'}", *keys)
            shape = list(inputs[name].shape)[1 if spec.batching.max_batch_size else 0 :]
            if not _fits(dims, shape):
                raise ManifestError(
                    f"expected sizes for {shape} (-1 is free), the batch axis left out, got {dims}", *keys
                )
            spec.warmup.shapes[name].dims.extend(dims)


def _narrow(kind: str, said: dict[str, Tensor], tensors: dict[str, TensorSpec]) -> None:
    """Gives free axes the sizes that the manifest knows; a shape that the graph leaves out altogether, too."""
    for name, tensor in said.items():
        if name not in tensors:
            raise ManifestError(f"the graph has no such name; it has {', '.join(tensors) or 'none'}", kind, name)
        if tensor.shape is None:  # only the tensors of ensembles are declared by name alone
            raise ManifestError("this key is missing", kind, name, "shape")
        shape = list(tensors[name].shape)
        if shape and not _fits(tensor.shape, shape):
            raise ManifestError(f"the graph says {shape} (-1 is free), got {tensor.shape}", kind, name, "shape")
        tensors[name].shape[:] = tensor.shape


def _fits(dims: list[int], shape: list[int]) -> bool:
    return len(dims) == len(shape) and all(free in {-1, size} for size, free in zip(dims, shape, strict=True))
