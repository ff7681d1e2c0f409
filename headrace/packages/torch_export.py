"""torch.export archives: opening one without unpickling anything, and reading the names and shapes of its tensors.

torch.export.load unpickles where an archive asks for it: weights and constants marked `use_pickle`, custom objects, the
formats of before torch 2.8, and sample inputs that a safe load refuses. So what an archive asks for is looked at first,
with the readers that torch uses, that no difference between two readers of zip files can hide anything. That keeps
pickles out; it does not make a stranger's archive harmless: its graph names functions of torch that are then called.
"""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.pt2_archive import PT2ArchiveReader

from headrace.packages.error import PackageError
from headrace.packages.manifest import DEFAULT_MAX_BATCH_SIZE
from headrace.v1.model_pb2 import ModelSpec, TensorSpec

_TYPES = {
    torch.bool: "BOOL",
    torch.uint8: "UINT8",
    torch.int8: "INT8",
    torch.int16: "INT16",
    torch.int32: "INT32",
    torch.int64: "INT64",
    torch.float16: "FP16",
    torch.bfloat16: "BF16",
    torch.float32: "FP32",
    torch.float64: "FP64",
}
_CONFIGS = ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json")
_SAMPLES = "data/sample_inputs/model.pt"
_KNOWN = {"models/model.json", "archive_format", "archive_version", "byteorder", _SAMPLES, *_CONFIGS}
_KNOWN_FOLDERS = ("data/weights/weight_", "data/constants/tensor_", "extra/", ".data/")


def inspect_export(path: Path) -> ModelSpec:
    """The spec that the exported program implies; symbolic sizes are free axes.

    The first axis is the batch axis where it is the same symbol in every input and output.

    Raises:
        PackageError: torch cannot load it, it would unpickle something, or an input or output is not a plain tensor.
    """
    program = load_archive(path)
    _check_structure(path, program)
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    signature = program.graph_signature
    inputs = {str(name): values.get(str(name)) for name in signature.user_inputs}
    outputs = [values.get(str(name)) for name in signature.user_outputs]
    spec = ModelSpec(
        runtime="torch",
        inputs=[_tensor(path, name, value) for name, value in inputs.items()],
        outputs=[_tensor(path, f"output{index}", value) for index, value in enumerate(outputs)],
    )
    spec.batching.max_batch_size = _max_batch_size(program, [*inputs.values(), *outputs]) if inputs else 0
    return spec


def _check_structure(path: Path, program: ExportedProgram) -> None:
    """Requests name tensors, and the worker passes them by position: no keywords, no nesting."""
    spec = program.call_spec
    if spec.in_spec is None or spec.out_spec is None:
        raise PackageError(f"{path}: says nothing of how it is called; export it with torch.export.export")
    positional, keywords = spec.in_spec.children()
    if keywords.num_leaves or not all(child.is_leaf() for child in positional.children()):
        raise PackageError(f"{path}: takes keyword or nested arguments; expected forward(tensor, tensor, …)")
    flat = spec.out_spec.type in {tuple, list} and all(child.is_leaf() for child in spec.out_spec.children())
    if not spec.out_spec.is_leaf() and not flat:
        raise PackageError(f"{path}: returns a {spec.out_spec.type}; expected a tensor or a flat tuple of tensors")


def _max_batch_size(program: ExportedProgram, values: list[Any]) -> int:
    """0 without a batch axis; else the default, or the most that the export allows."""
    axes = [value.shape[0] if value.shape else 0 for value in values]
    symbols = {str(axis) for axis in axes}
    if len(symbols) != 1 or isinstance(axes[0], int):
        return 0
    for symbol, allowed in program.range_constraints.items():
        if str(symbol) in symbols and int(allowed.upper) < DEFAULT_MAX_BATCH_SIZE:
            return int(allowed.upper)
    return DEFAULT_MAX_BATCH_SIZE


def _tensor(path: Path, name: str, value: Any) -> TensorSpec:
    if not isinstance(value, torch.Tensor) or value.dtype not in _TYPES:
        what = value.dtype if isinstance(value, torch.Tensor) else type(value).__name__
        raise PackageError(f"{path}: '{name}' is {what}; expected a tensor of {', '.join(map(str, _TYPES))}")
    shape = [size if isinstance(size, int) else -1 for size in value.shape]
    return TensorSpec(name=name, datatype=_TYPES[value.dtype], shape=shape)


def load_archive(path: Path) -> ExportedProgram:
    """Loads what torch.export.save wrote. Blocks.

    Raises:
        PackageError: it is no such archive, it would unpickle something, or torch cannot load it.
    """
    try:
        with PT2ArchiveReader(str(path)) as archive:
            _refuse_pickles(path, archive)
        return torch.export.load(path)
    except PackageError:
        raise
    except Exception as error:  # torch raises anything for damaged archives
        raise PackageError(f"{path}: torch {torch.__version__} cannot load it: {_first_line(error)}") from error


def _refuse_pickles(path: Path, archive: PT2ArchiveReader) -> None:
    with zipfile.ZipFile(path) as older:  # how torch.export.load reads the format of before 2.8, its way out of errors
        if "version" in older.namelist():
            raise PackageError(f"{path}: is in the format of before torch 2.8, which unpickles; export it again")
        # torch.export.save compresses nothing. Compressed or overlapping entries make gigabytes of a kilobyte.
        members = older.infolist()
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise PackageError(
                f"{path}: holds compressed entries, which torch.export.save does not write; export it again"
            )
        if (said := sum(member.file_size for member in members)) > path.stat().st_size:
            raise PackageError(f"{path}: its entries claim {said} bytes, more than the whole file has")
    names = archive.get_file_names()
    for name in names:
        if name not in _KNOWN and not name.startswith(_KNOWN_FOLDERS):
            raise PackageError(
                f"{path}: holds '{name}', which may run code when it is loaded; expected what torch.export.save writes:"
                " a graph, tensors and sample inputs"
            )
    for config in _CONFIGS:
        entries: dict[str, Any] = json.loads(archive.read_string(config))["config"] if config in names else {}
        for tensor, entry in entries.items():
            if entry.get("use_pickle"):
                raise PackageError(f"{path}: '{tensor}' is pickled; expected plain tensors (no tensor subclasses)")
    try:
        torch.load(io.BytesIO(archive.read_bytes(_SAMPLES)), weights_only=True)
    except Exception as error:
        raise PackageError(
            f"{path}: its sample inputs hold more than tensors and plain values: {_first_line(error)}; export it with"
            " tensors only"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
