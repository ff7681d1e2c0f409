"""Reading an ONNX graph: inputs, outputs, types, batch axis; and proof that ONNX Runtime loads it."""

from pathlib import Path
from typing import Any

import onnxruntime as ort

from headrace.packages.error import PackageError
from headrace.packages.manifest import DEFAULT_MAX_BATCH_SIZE
from headrace.v1.model_pb2 import ModelSpec, TensorSpec

_TYPES = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}


def inspect_onnx(path: Path) -> ModelSpec:
    """The spec that the graph implies.

    The first axis is the batch axis where it is free (a name or unknown) in every input and output, and the same name
    throughout if it has one. Raises PackageError where the graph does not load.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no base class
        raise PackageError(f"{path}: ONNX Runtime {ort.__version__} cannot load it: {error}") from error
    tensors = [*session.get_inputs(), *session.get_outputs()]
    axes = [tensor.shape[0] if tensor.shape else 0 for tensor in tensors]
    named = {axis for axis in axes if isinstance(axis, str)}
    # Two names are two sizes, as far as anybody knows.
    batched = bool(session.get_inputs()) and len(named) <= 1 and not any(isinstance(axis, int) for axis in axes)
    spec = ModelSpec(
        runtime="onnx",
        inputs=[_tensor(path, tensor) for tensor in session.get_inputs()],
        outputs=[_tensor(path, tensor) for tensor in session.get_outputs()],
    )
    spec.batching.max_batch_size = DEFAULT_MAX_BATCH_SIZE if batched else 0
    return spec


def _tensor(path: Path, tensor: Any) -> TensorSpec:
    datatype = _TYPES.get(tensor.type)
    if datatype is None:
        raise PackageError(f"{path}: '{tensor.name}' is a {tensor.type}; expected one of {', '.join(_TYPES)}")
    shape = [axis if isinstance(axis, int) and axis >= 0 else -1 for axis in tensor.shape]
    return TensorSpec(name=tensor.name, datatype=datatype, shape=shape)
