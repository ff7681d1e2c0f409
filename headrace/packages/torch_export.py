"""Reading a torch.export archive: its user inputs and outputs. Loading one runs no pickled code."""

from pathlib import Path
from typing import Any

import torch

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
    torch.float32: "FP32",
    torch.float64: "FP64",
}


def inspect_export(path: Path) -> ModelSpec:
    """The spec that the exported program implies; symbolic sizes are free axes.

    Raises:
        PackageError: torch cannot load it, or an input or output is not a tensor of a known type.
    """
    try:
        program = torch.export.load(path)
    except Exception as error:
        raise PackageError(f"{path}: torch {torch.__version__} cannot load it: {error}") from error
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    signature = program.graph_signature
    spec = ModelSpec(
        runtime="torch",
        inputs=[_tensor(path, str(name), values[str(name)]) for name in signature.user_inputs],
        outputs=[
            _tensor(path, str(name), values[str(name)], shown=f"output{index}")
            for index, name in enumerate(signature.user_outputs)
        ],
    )
    batched = all(tensor.shape and tensor.shape[0] == -1 for tensor in [*spec.inputs, *spec.outputs])
    spec.batching.max_batch_size = DEFAULT_MAX_BATCH_SIZE if batched and spec.inputs else 0
    return spec


def _tensor(path: Path, name: str, value: Any, shown: str = "") -> TensorSpec:
    if not isinstance(value, torch.Tensor) or value.dtype not in _TYPES:
        what = value.dtype if isinstance(value, torch.Tensor) else type(value).__name__
        raise PackageError(f"{path}: '{name}' is {what}; expected a tensor of {', '.join(map(str, _TYPES))}")
    shape = [size if isinstance(size, int) else -1 for size in value.shape]
    return TensorSpec(name=shown or name, datatype=_TYPES[value.dtype], shape=shape)
