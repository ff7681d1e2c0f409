"""When two versions' answers count as the same."""

import numpy as np
import pytest
from numpy.typing import ArrayLike

from headrace.inference.grpc_service_pb2 import ModelInferResponse
from services.gateway.comparison import same_answer


def answer(values: ArrayLike, datatype: str = "FP32", name: str = "y", shape: tuple[int, ...] | None = None) -> bytes:
    kind = {"FP32": np.float32, "INT64": np.int64}[datatype]
    array = np.asarray(values, kind)
    response = ModelInferResponse(raw_output_contents=[array.tobytes()])
    response.outputs.add(name=name, datatype=datatype, shape=shape or array.shape)
    return response.SerializeToString()


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        pytest.param(answer([1.0, 2.0]), answer([1.0, 2.0]), True, id="bit for bit"),
        pytest.param(answer([1.0, 2.0]), answer([1.0001, 2.0]), True, id="rounding"),
        pytest.param(answer([1.0, 2.0]), answer([1.01, 2.0]), False, id="more than rounding"),
        pytest.param(answer([float("nan")]), answer([float("nan")]), True, id="NaN is NaN"),
        pytest.param(answer([1], "INT64"), answer([2], "INT64"), False, id="whole numbers are exact"),
        pytest.param(answer([1.0]), answer([1.0], name="z"), False, id="another name"),
        pytest.param(answer([1.0, 2.0]), answer([1.0, 2.0], shape=(2, 1)), False, id="another shape"),
        pytest.param(answer([1.0]), answer([1], "INT64"), False, id="another type"),
    ],
)
def test_same_answer(one: bytes, other: bytes, same: bool) -> None:
    assert same_answer(ModelInferResponse.FromString(one), ModelInferResponse.FromString(other)) is same
