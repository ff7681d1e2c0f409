"""Whether two versions gave the same answer, as far as rounding lets one say. Pure."""

import numpy as np

from headrace.inference.grpc_service_pb2 import ModelInferResponse
from services.common.datatypes import DATATYPES

# Relative and absolute tolerance; another graph of the same model adds up in another order.
_TOLERANCES = {"FP64": (1e-6, 1e-9), "FP32": (1e-3, 1e-5), "FP16": (1e-2, 1e-3)}


def same_answer(one: ModelInferResponse, other: ModelInferResponse) -> bool:
    """The same outputs by name, type, shape and contents; floating point within a tolerance, NaN equal to NaN."""
    left, right = _tensors(one), _tensors(other)
    return left.keys() == right.keys() and all(_same(*key[1:2], left[key], right[key]) for key in left)


def _tensors(response: ModelInferResponse) -> dict[tuple[str, str, tuple[int, ...]], bytes]:
    """Workers answer with raw contents, one for each output."""
    return {
        (output.name, output.datatype, tuple(output.shape)): raw
        for output, raw in zip(response.outputs, response.raw_output_contents, strict=True)
    }


def _same(datatype: str, one: bytes, other: bytes) -> bool:
    tolerance = _TOLERANCES.get(datatype)
    if one == other or tolerance is None:
        return one == other
    kind = DATATYPES[datatype].numpy
    left, right = np.frombuffer(one, kind), np.frombuffer(other, kind)
    return len(left) == len(right) and bool(np.allclose(left, right, *tolerance, equal_nan=True))
