"""Reading model.yaml, and errors that name its line and key."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from headrace.packages.error import PackageError
from headrace.packages.manifest import Manifest
from headrace.packages.manifest_parts import ManifestError
from headrace.packages.plain_yaml import plain
from headrace.v1.model_pb2 import ModelSpec

Keys = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class ManifestFile:
    """What a model.yaml says, and where it says it."""

    path: Path
    manifest: Manifest
    root: Any = None

    def apply(self, spec: ModelSpec) -> None:
        """Puts the manifest over the spec. Raises PackageError."""
        try:
            if spec.HasField("text"):
                self.manifest.apply_text(spec)
            elif spec.HasField("ensemble"):
                self.manifest.apply_ensemble(spec)
            else:
                self.manifest.apply(spec)
        except ManifestError as error:
            raise self.refuse(str(error), *error.keys) from error

    def refuse(self, message: str, *keys: str | int) -> PackageError:
        """The error about one key."""
        return PackageError(_place(self.path, self.root, keys, message))


def read_manifest(path: Path) -> ManifestFile:
    """Reads model.yaml; a folder without one gets the defaults.

    Raises:
        PackageError: "model.yaml, line 3, batching.max_batch_size: …", a line for each fault.
    """
    if not path.exists():
        return ManifestFile(path, Manifest())
    root = _compose(path)
    if root is None:
        return ManifestFile(path, Manifest())
    for keys, line in _duplicates(root, ()):
        raise PackageError(f"{path}, line {line}, {_dotted(keys)}: this key was given before")
    try:
        return ManifestFile(path, Manifest.model_validate(_construct(path, root)), root)
    except ValidationError as error:
        raise PackageError("\n".join(_explain(path, root, problem) for problem in error.errors())) from error


def _compose(path: Path) -> Any:
    try:
        return yaml.compose(plain(path.read_text(encoding="utf-8")), Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark is not None else ""
        raise PackageError(f"{path}{where}: not YAML: {getattr(error, 'problem', None) or error}") from error
    except UnicodeDecodeError as error:
        raise PackageError(f"{path}: not YAML: expected text in UTF-8, {error}") from error


def _construct(path: Path, root: Any) -> Any:
    try:
        return yaml.SafeLoader("").construct_document(root)
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None) or root.start_mark
        problem = getattr(error, "problem", None) or error
        raise PackageError(f"{path}, line {mark.line + 1}: cannot be read: {problem}") from error


def _duplicates(node: Any, keys: Keys) -> Iterator[tuple[Keys, int]]:
    """Keys that stand twice in one mapping: YAML would silently take the last."""
    if not isinstance(node, yaml.MappingNode):
        return
    seen: set[str] = set()
    for name, value in node.value:
        if name.value in seen:
            yield (*keys, name.value), name.start_mark.line + 1
        seen.add(str(name.value))
        yield from _duplicates(value, (*keys, name.value))


def _explain(path: Path, root: Any, problem: Any) -> str:
    keys = tuple(part for part in problem["loc"] if isinstance(part, str | int))
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        message = f"unknown key; known are {', '.join(_known(keys[:-1]))}"
    elif problem["type"] == "missing":
        message = "this key is missing"
    elif problem["type"] in {"model_type", "dict_type"}:
        message = f"expected keys and values, got {problem['input']!r}"
    elif problem["type"] != "value_error":
        message = f"{message[0].lower()}{message[1:]}, got {problem['input']!r}"
    return _place(path, root, keys, message)


def _known(keys: Keys) -> list[str]:
    """The keys that may stand below these."""
    part: Any = Manifest
    for key in keys:
        field = part.model_fields.get(key) if hasattr(part, "model_fields") else None
        # In a list, or a mapping of free names, the key says nothing: what follows is of the elements' type.
        part = field.annotation if field is not None else part.__args__[-1]
    return list(part.model_fields)


def _place(path: Path, root: Any, keys: Keys, message: str) -> str:
    return f"{path}, line {_line(root, keys)}, {_dotted(keys)}: {message}"


def _dotted(keys: Keys) -> str:
    return ".".join(str(key) for key in keys if key != "[key]") or "the document"


def _line(node: Any, keys: Keys) -> int:
    """The line on which the key stands, or the nearest key around it."""
    line = int(node.start_mark.line) + 1 if node is not None else 1
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
