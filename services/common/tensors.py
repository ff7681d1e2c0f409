"""Between the protocol's tensors and numpy: views of the request's bytes where the bytes are raw."""

import struct

import numpy as np
from numpy.typing import NDArray

from headrace.inference.grpc_service_pb2 import ModelInferRequest, ModelInferResponse
from headrace.v1.model_pb2 import ModelVersion
from services.common.datatypes import DATATYPES
from services.common.errors import InvalidArgument, ModelFailed

Array = NDArray[np.generic]
_LENGTH = struct.Struct("<I")
# numpy looks a name up anew each time that it is given one.
_DTYPES = {datatype.name: np.dtype(datatype.numpy) for datatype in DATATYPES.values()}


def decode_inputs(request: ModelInferRequest) -> dict[str, Array]:
    """Input name → array of the declared shape; BYTES become object arrays of bytes, BF16 uint16 bits.

    Raw numeric contents are viewed, not copied, and read-only. Raises InvalidArgument where sizes do not fit.
    """
    raws = request.raw_input_contents
    if raws and len(raws) != len(request.inputs):
        raise InvalidArgument(f"{len(raws)} raw contents for {len(request.inputs)} inputs; send one for each")
    arrays: dict[str, Array] = {}
    for index, tensor in enumerate(request.inputs):
        datatype = DATATYPES.get(tensor.datatype)
        if datatype is None:
            raise InvalidArgument(f"input '{tensor.name}' has unknown datatype '{tensor.datatype}'")
        shape = tuple(tensor.shape)
        if shape and min(shape) < 0:
            raise InvalidArgument(f"input '{tensor.name}': shape {list(shape)} has a negative size")
        try:
            if not raws:
                values = getattr(tensor.contents, datatype.contents) if datatype.contents else ()
                # A list: numpy takes protobuf's own container without a look at the range.
                flat: Array = np.array(list(values), dtype=datatype.numpy)
            elif datatype.size:
                flat = np.frombuffer(raws[index], dtype=_DTYPES[datatype.name])
            else:
                flat = _unpack_bytes(raws[index])
            arrays[tensor.name] = flat.reshape(shape)
        except (ValueError, IndexError, struct.error, OverflowError) as error:
            raise InvalidArgument(
                f"input '{tensor.name}': its contents do not fill shape {list(tensor.shape)} of {tensor.datatype}"
            ) from error
    return arrays


class OutputEncoder:
    """Writes responses of one model version; made once a batch, so that a request finds its spec prepared."""

    def __init__(self, version: ModelVersion) -> None:
        self._model = version.name
        self._version = str(version.version)
        self._datatypes = {tensor.name: tensor.datatype for tensor in version.spec.outputs}

    def encode(self, request: ModelInferRequest, outputs: dict[str, Array]) -> bytes:
        """A serialised ModelInferResponse with raw contents: the outputs asked for, or all.

        Raises:
            InvalidArgument: an output was asked for that the model does not have.
            ModelFailed: the model did not give an output that its spec names, or gave one that is not its type.
        """
        response = ModelInferResponse(model_name=self._model, model_version=self._version, id=request.id)
        for name in [output.name for output in request.outputs] or self._datatypes:
            datatype = self._datatypes.get(name)
            if datatype is None:
                raise InvalidArgument(f"no output '{name}'; the model gives {', '.join(self._datatypes)}")
            array = outputs.get(name)
            if array is None:
                raise ModelFailed(f"the model gave no output '{name}'; it gave {', '.join(outputs) or 'none'}")
            response.outputs.add(name=name, datatype=datatype, shape=array.shape)
            response.raw_output_contents.append(_pack(array, datatype))
        return response.SerializeToString()


def _pack(array: Array, datatype: str) -> bytes:
    if datatype == "BYTES":
        return pack_bytes(array)
    expected = _DTYPES[datatype]
    return (array if array.dtype == expected else array.astype(expected)).tobytes()


def pack_bytes(array: Array) -> bytes:
    """Row-major elements, each behind its 4-byte little-endian length; strings as UTF-8."""
    parts: list[bytes] = []
    for element in array.ravel():
        content = element if isinstance(element, bytes) else str(element).encode()
        parts += (_LENGTH.pack(len(content)), content)
    return b"".join(parts)


def _unpack_bytes(raw: bytes) -> Array:
    values: list[bytes] = []
    offset = 0
    while offset < len(raw):
        end = offset + 4 + _LENGTH.unpack_from(raw, offset)[0]
        if end > len(raw):
            raise ValueError("the last element is cut off")
        values.append(raw[offset + 4 : end])
        offset = end
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array
