"""Checking safetensors files without loading them: the header says what is inside, and it must be what the file holds.

The format: eight bytes of length (little-endian), a JSON object of tensors by name with dtype, shape and data_offsets,
then the data. https://huggingface.co/docs/safetensors
"""

import json
import struct
from math import prod
from pathlib import Path
from typing import Any

from headrace.packages.error import PackageError

INDEX = "model.safetensors.index.json"
MOST_HEADER_BYTES = 100 * 1024 * 1024
_BITS = {"BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16} | {
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "I64": 64,
    "U64": 64,
    "F64": 64,
}


def checked_weights(folder: Path) -> list[Path]:
    """The files that hold the model: those that the index names, or else all that there are. Each is whole.

    Raises:
        PackageError: it names the file, and the tensor where one is at fault.
    """
    index = folder / INDEX
    if not index.is_file():
        # Mistral's own format, which stands beside the other in its repositories.
        files = [file for file in sorted(folder.glob("*.safetensors")) if not file.name.startswith("consolidated")]
        if not files:
            raise PackageError(f"{folder}: has no .safetensors file; save the model with save_pretrained")
        for file in files:
            _tensors(file)
        return files
    try:
        placed: dict[str, str] = dict(json.loads(index.read_text(encoding="utf-8"))["weight_map"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise PackageError(f"{index}, weight_map: expected the files of tensors by name: {error!r}") from error
    there = {file.name: _tensors(file) for file in sorted(folder.glob("*.safetensors")) if file.name in placed.values()}
    for name, file_name in placed.items():
        if name not in there.get(file_name, ()):
            why = "which lacks it" if file_name in there else "which is not there"
            raise PackageError(f"{index}, weight_map.{name}: is in '{file_name}', {why}")
    return [folder / name for name in sorted(there)]


def _tensors(path: Path) -> set[str]:
    """The names in a file, after a look at each."""
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
        if not 2 <= length <= min(size - 8, MOST_HEADER_BYTES):
            raise PackageError(f"{path}: no safetensors file, or cut off: its header cannot have {length} bytes")
        try:
            header: dict[str, Any] = json.loads(file.read(length))
        except (ValueError, RecursionError) as error:
            raise PackageError(f"{path}: no safetensors file: its header is not JSON: {error}") from error
    header.pop("__metadata__", None)
    for name, tensor in header.items():
        _check_tensor(path, name, tensor, size - 8 - length)
    return set(header)


def _check_tensor(path: Path, name: str, tensor: Any, room: int) -> None:
    try:
        bits, (begin, end) = _BITS[tensor["dtype"]], tensor["data_offsets"]
        whole = end - begin == prod(tensor["shape"]) * bits // 8
    except (KeyError, TypeError, ValueError) as error:
        raise PackageError(f"{path}, {name}: expected dtype, shape and data_offsets; got {tensor}") from error
    if not whole or not 0 <= begin <= end <= room:
        raise PackageError(f"{path}, {name}: its data is not where the header says; the file is damaged or cut off")
