"""model.yaml: its keys, their types, and errors that name the line."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from headrace.packages.error import PackageError
from headrace.v1.model_pb2 import ModelSpec

# Where the graph has a batch axis and nobody said how long a batch may be.
DEFAULT_MAX_BATCH_SIZE = 64
_SIZES = {"": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "KB": 10**3, "MB": 10**6, "GB": 10**9}


def _bytes(value: Any) -> Any:
    """ "512MiB" → 536870912."""
    if isinstance(value, str):
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]i?B|)", value.strip())
        if match is None:
            raise ValueError('expected a number of bytes, or one with a unit like "512MiB"')
        return int(float(match[1]) * _SIZES[match[2]])
    return value


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Batching(_Part):
    """How requests are grouped."""

    max_batch_size: Annotated[int, Field(ge=0, le=65536)] | None = None
    max_queue_delay_ms: Annotated[float, Field(ge=0, le=10_000, strict=False)] = 0.0
    padding: bool = False
    padding_value: Annotated[float, Field(strict=False)] = 0.0


class Queue(_Part):
    """What may wait, and for how long."""

    max_requests: Annotated[int, Field(ge=1)] | None = None
    default_timeout_ms: Annotated[int, Field(ge=1)] | None = None
    max_attempts: Annotated[int, Field(ge=1, le=100)] | None = None


class Warmup(_Part):
    """What runs before the worker says ready."""

    disabled: bool = False
    batch_sizes: list[Annotated[int, Field(ge=1)]] = []
    shapes: dict[str, list[Annotated[int, Field(ge=0)]]] = {}


class Manifest(_Part):
    """All keys of model.yaml; every one is optional."""

    runtime: Literal["onnx", "torch"] | None = None
    entry: str | None = None
    description: str = ""
    batching: Batching = Batching()
    queue: Queue = Queue()
    warmup: Warmup = Warmup()
    memory: Annotated[int, BeforeValidator(_bytes), Field(ge=0)] = 0
    parameters: dict[str, str] = {}

    def apply(self, spec: ModelSpec) -> None:
        """Puts what the manifest says over what the graph says. Raises PackageError where the two cannot be joined."""
        if self.batching.max_batch_size is not None:
            if self.batching.max_batch_size and not spec.batching.max_batch_size:
                raise PackageError(
                    "batching.max_batch_size: the graph has no free first axis shared by all inputs and outputs;"
                    " export it with a dynamic batch axis, or leave the key out"
                )
            spec.batching.max_batch_size = self.batching.max_batch_size
        spec.batching.max_queue_delay_us = int(self.batching.max_queue_delay_ms * 1000)
        spec.batching.padding = self.batching.padding
        spec.batching.padding_value = self.batching.padding_value
        spec.queue.max_requests = self.queue.max_requests or 0
        spec.queue.default_timeout_ms = self.queue.default_timeout_ms or 0
        spec.queue.max_attempts = self.queue.max_attempts or 0
        spec.warmup.disabled = self.warmup.disabled
        spec.warmup.batch_sizes.extend(self.warmup.batch_sizes)
        inputs = {tensor.name for tensor in spec.inputs}
        for name, dims in self.warmup.shapes.items():
            if name not in inputs:
                raise PackageError(f"warmup.shapes: no input '{name}'; the model takes {', '.join(sorted(inputs))}")
            spec.warmup.shapes[name].dims.extend(dims)
        spec.memory_bytes = self.memory
        spec.description = self.description
        spec.parameters.update(self.parameters)


def read_manifest(path: Path) -> Manifest:
    """Reads model.yaml; a folder without one gets the defaults.

    Raises:
        PackageError: "model.yaml, line 3, batching.max_batch_size: …".
    """
    if not path.exists():
        return Manifest()
    try:
        text = path.read_text()
        root = yaml.compose(text)
        document = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark is not None else ""
        raise PackageError(f"{path}{where}: not YAML: {getattr(error, 'problem', None) or error}") from error
    if document is None:
        return Manifest()
    try:
        return Manifest.model_validate(document)
    except ValidationError as error:
        raise PackageError("\n".join(_explain(path, root, problem) for problem in error.errors())) from error


def _explain(path: Path, root: Any, problem: Any) -> str:
    keys = [part for part in problem["loc"] if isinstance(part, str | int)]
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        message = f"unknown key; known are {', '.join(_known(keys[:-1]))}"
    elif problem["type"] != "value_error":
        message = f"{message[0].lower()}{message[1:]}, got {problem['input']!r}"
    return f"{path}, line {_line(root, keys)}, {'.'.join(map(str, keys)) or 'the document'}: {message}"


def _known(keys: list[str | int]) -> list[str]:
    part: Any = Manifest
    for key in keys:
        part = part.model_fields[key].annotation
    return list(part.model_fields)


def _line(node: Any, keys: list[str | int]) -> int:
    """The line on which the key stands, or the nearest key around it."""
    line = node.start_mark.line + 1 if node is not None else 1
    for key in keys:
        if isinstance(node, yaml.MappingNode):
            pair = next(((name, value) for name, value in node.value if name.value == str(key)), None)
            if pair is None:
                break
            line, node = pair[0].start_mark.line + 1, pair[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
            node = node.value[key]
            line = node.start_mark.line + 1
    return line
