"""What names, specs and file lists must look like. Pure."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from headrace.v1.model_pb2 import ModelFile, ModelSpec
from services.common.datatypes import DATATYPES
from services.common.errors import InvalidArgument

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_ALIAS = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
# Keys have eight digits, so that they sort as their numbers do.
_VERSION_KEY = re.compile(r"[0-9]{8}")
MAX_VERSION = 99_999_999
MAX_BATCH_SIZE = 65_536
MAX_INSTANCES = 64
RUNTIMES = ("onnx", "torch", "llm", "vllm", "openai", "embedding", "tokenizer", "identity", "ensemble")


@dataclass(frozen=True, slots=True)
class ModelKey:
    """What an object below models/ is: a version (number > 0), an alias, a rollout's revision, the mark `unloaded`."""

    model: str
    number: int = 0
    alias: str = ""
    revision: int = 0
    unloaded: bool = False


def parse_key(key: str) -> ModelKey | None:
    """models/<name>/ with versions/<8 digits>, aliases/<alias>, rollouts/<8 digits> or unloaded; None for all else."""
    match key.split("/"):
        case ["models", name, "versions", number] if _NAME.fullmatch(name) and _VERSION_KEY.fullmatch(number):
            return ModelKey(name, number=int(number)) if int(number) else None
        case ["models", name, "aliases", alias] if _NAME.fullmatch(name) and _ALIAS.fullmatch(alias):
            return ModelKey(name, alias=alias)
        case ["models", name, "rollouts", number] if _NAME.fullmatch(name) and _VERSION_KEY.fullmatch(number):
            return ModelKey(name, revision=int(number)) if int(number) else None
        case ["models", name, "unloaded"] if _NAME.fullmatch(name):
            return ModelKey(name, unloaded=True)
    return None


def check_name(name: str) -> None:
    """Raises InvalidArgument unless it is a model name."""
    if not _NAME.fullmatch(name):
        raise InvalidArgument(
            f"model name {name[:200]!r}: expected 1 to 128 letters, digits, '.', '_' or '-', beginning with a letter or"
            " a digit"
        )


def check_alias(alias: str) -> None:
    """Raises InvalidArgument unless it is an alias; one that begins with a letter cannot be taken for a number."""
    if not _ALIAS.fullmatch(alias):
        raise InvalidArgument(
            f"alias {alias[:200]!r}: expected 1 to 64 letters, digits, '_' or '-', beginning with a letter"
        )


def check_number(number: int) -> None:
    """Raises InvalidArgument unless it can be a version number."""
    if not 1 <= number <= MAX_VERSION:
        raise InvalidArgument(f"version {number}: expected 1 to {MAX_VERSION}, or 0 for the next free number")


def check_digest(digest: str) -> None:
    """Raises InvalidArgument unless it is a lower-case hexadecimal SHA-256."""
    if not _SHA256.fullmatch(digest):
        raise InvalidArgument(f"digest {digest[:80]!r}: expected 64 lower-case hexadecimal digits")


def check_files(files: Iterable[ModelFile], entry: str) -> None:
    """Raises InvalidArgument unless paths are relative, distinct, and the entry is among them."""
    seen: set[str] = set()
    for file in files:
        parts = file.path.split("/")
        if any(part in {"", ".", ".."} for part in parts) or "\\" in file.path or "\0" in file.path:
            raise InvalidArgument(f"file path {file.path[:200]!r}: expected a relative path without '.' and '..'")
        if file.path in seen:
            raise InvalidArgument(f"file path '{file.path}' is given twice")
        check_digest(file.sha256)
        seen.add(file.path)
    if entry not in seen:
        raise InvalidArgument(f"spec.entry '{entry}' is not among the files: {', '.join(sorted(seen)) or 'none'}")


def check_spec(spec: ModelSpec) -> None:
    """Raises InvalidArgument unless runtime, tensors and batching make sense together."""
    if spec.runtime not in RUNTIMES:
        raise InvalidArgument(f"spec.runtime is {spec.runtime[:80]!r}; expected one of {', '.join(RUNTIMES)}")
    if (spec.runtime == "ensemble") != spec.HasField("ensemble"):
        raise InvalidArgument("spec.ensemble and the runtime 'ensemble' go together; set both or none")
    if not spec.outputs:
        raise InvalidArgument("spec.outputs is empty; a model gives at least one output")
    if spec.instances > MAX_INSTANCES:
        raise InvalidArgument(f"spec.instances {spec.instances} is over {MAX_INSTANCES}")
    if spec.batching.max_batch_size > MAX_BATCH_SIZE:
        raise InvalidArgument(f"batching.max_batch_size {spec.batching.max_batch_size} is over {MAX_BATCH_SIZE}")
    for kind, tensors in (("input", spec.inputs), ("output", spec.outputs)):
        names = [tensor.name for tensor in tensors]
        if len(set(names)) != len(names) or "" in names:
            raise InvalidArgument(f"{kind} names must be distinct and not empty; got {names}")
        for tensor in tensors:
            if tensor.datatype not in DATATYPES:
                raise InvalidArgument(
                    f"{kind} '{tensor.name}' has datatype '{tensor.datatype}'; known are {', '.join(DATATYPES)}"
                )
            if any(size < -1 for size in tensor.shape):
                raise InvalidArgument(
                    f"{kind} '{tensor.name}' has shape {list(tensor.shape)}; sizes are 0 and more, or -1 where free"
                )
            if spec.batching.max_batch_size and (not tensor.shape or tensor.shape[0] != -1):
                raise InvalidArgument(
                    f"{kind} '{tensor.name}' has shape {list(tensor.shape)}, but batching needs a free first axis (-1);"
                    " set batching.max_batch_size to 0 or export the model with a dynamic batch axis"
                )


def next_version(taken: Iterable[int]) -> int:
    """One more than the highest ever used, deleted ones included: numbers are never reused."""
    return max(taken, default=0) + 1
