"""numpy on one side, the protocol's messages on the other."""

import struct
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from headrace.client.errors import InvalidArgumentError
from headrace.inference.grpc_service_pb2 import ModelInferRequest, ModelInferResponse

Array = NDArray[np.generic]
_DATATYPES = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
}
_DTYPES = {name: dtype for dtype, name in _DATATYPES.items()} | {"BF16": "uint16"}


def make_request(
    model: str, inputs: Mapping[str, Array], version: str, request_id: str, priority: int = 0
) -> ModelInferRequest:
    """Raw contents throughout; strings and objects become BYTES. Raises InvalidArgumentError."""
    request = ModelInferRequest(model_name=model, model_version=version, id=request_id)
    if priority:
        request.parameters["priority"].int64_param = priority
    for name, array in inputs.items():
        tensor = request.inputs.add()
        tensor.name = name
        tensor.shape.extend(array.shape)
        if array.dtype.kind in "OSU":
            tensor.datatype = "BYTES"
            request.raw_input_contents.append(_pack(array))
        elif (datatype := _DATATYPES.get(array.dtype.name)) is not None:
            tensor.datatype = datatype
            # The protocol is little-endian; numpy's name of a type does not tell its byte order.
            request.raw_input_contents.append(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
        else:
            raise InvalidArgumentError(f"input '{name}' is {array.dtype}; expected one of {', '.join(_DATATYPES)}")
    return request


def read_response(response: ModelInferResponse) -> dict[str, Array]:
    """Output name → array; BYTES become object arrays of bytes."""
    outputs: dict[str, Array] = {}
    for tensor, raw in zip(response.outputs, response.raw_output_contents, strict=True):
        if tensor.datatype == "BYTES":
            flat: Array = _unpack(raw)
        else:
            flat = np.frombuffer(raw, _DTYPES[tensor.datatype])
        outputs[tensor.name] = flat.reshape(tuple(tensor.shape))
    return outputs


def _pack(array: Array) -> bytes:
    parts: list[bytes] = []
    for element in array.ravel():
        content = element if isinstance(element, bytes) else str(element).encode()
        parts += (struct.pack("<I", len(content)), content)
    return b"".join(parts)


def _unpack(raw: bytes) -> Array:
    values: list[bytes] = []
    offset = 0
    while offset < len(raw):
        end = offset + 4 + struct.unpack_from("<I", raw, offset)[0]
        values.append(raw[offset + 4 : end])
        offset = end
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array
