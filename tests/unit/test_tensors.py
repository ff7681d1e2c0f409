"""Between the protocol's tensors and numpy."""

import struct
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.inference.grpc_service_pb2 import ModelInferRequest, ModelInferResponse
from headrace.v1.model_pb2 import ModelSpec, ModelVersion, TensorSpec
from services.common.datatypes import DATATYPES
from services.common.errors import InvalidArgument, ModelFailed
from services.common.tensors import Array, OutputEncoder, decode_inputs, pack_bytes


def raw(datatype: str, shape: list[int], content: bytes) -> ModelInferRequest:
    request = ModelInferRequest(raw_input_contents=[content])
    request.inputs.add(name="x", datatype=datatype, shape=shape)
    return request


def typed(datatype: str, shape: list[int], **contents: Sequence[object]) -> ModelInferRequest:
    request = ModelInferRequest()
    tensor = request.inputs.add(name="x", datatype=datatype, shape=shape)
    for field, values in contents.items():
        getattr(tensor.contents, field).extend(values)
    return request


def version(datatype: str, *outputs: str) -> ModelVersion:
    spec = ModelSpec(outputs=[TensorSpec(name=name, datatype=datatype, shape=[-1]) for name in outputs or ("y",)])
    return ModelVersion(name="m", version=7, spec=spec)


NUMERIC = [datatype for datatype in DATATYPES.values() if datatype.size]


@pytest.mark.parametrize("datatype", NUMERIC, ids=lambda datatype: datatype.name)
def test_raw_numbers_are_views_of_the_request(datatype: object) -> None:
    kind = DATATYPES[getattr(datatype, "name", "")]
    content = np.array([[0, 1], [1, 0]]).astype(kind.numpy).tobytes()
    array = decode_inputs(raw(kind.name, [2, 2], content))["x"]
    assert (array.dtype, array.shape) == (np.dtype(kind.numpy), (2, 2))
    assert not array.flags.writeable
    assert not array.flags.owndata
    assert array.tobytes() == content


@pytest.mark.parametrize(
    "datatype", [kind for kind in NUMERIC if kind.contents], ids=lambda datatype: str(datatype.name)
)
def test_typed_numbers(datatype: object) -> None:
    kind = DATATYPES[getattr(datatype, "name", "")]
    array = decode_inputs(typed(kind.name, [1, 2], **{kind.contents: [1, 0]}))["x"]
    assert (array.dtype, array.tolist()) == (np.dtype(kind.numpy), [[1, 0]])


@given(st.lists(st.binary(max_size=20), max_size=8))
def test_strings_there_and_back(values: list[bytes]) -> None:
    packed = pack_bytes(np.array([*values, b""], dtype=object)[:-1])
    assert packed == b"".join(struct.pack("<I", len(value)) + value for value in values)
    assert decode_inputs(raw("BYTES", [len(values)], packed))["x"].tolist() == values
    assert decode_inputs(typed("BYTES", [len(values)], bytes_contents=list(values)))["x"].tolist() == values


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(raw("FP32", [2], bytes(7)), id="too few bytes"),
        pytest.param(raw("FP32", [2], bytes(12)), id="too many"),
        pytest.param(raw("FP33", [1], bytes(4)), id="unknown type"),
        pytest.param(raw("FP32", [-1], bytes(4)), id="a free size"),
        pytest.param(raw("BYTES", [1], b"\x05\0\0\0abc"), id="string cut off"),
        pytest.param(raw("BYTES", [1], b"\x05\0"), id="length cut off"),
        pytest.param(raw("BYTES", [2], b"\x01\0\0\0a"), id="too few strings"),
        pytest.param(typed("FP32", [2], fp32_contents=[1.0]), id="too few values"),
        pytest.param(typed("INT8", [1], int_contents=[300]), id="out of range"),
        pytest.param(typed("BF16", [1], fp32_contents=[1.0]), id="no typed contents for it"),
        pytest.param(ModelInferRequest(raw_input_contents=[b"", b""], inputs=[{"name": "x"}]), id="raws and inputs"),  # type: ignore[list-item]
    ],
)
def test_malformed_contents_are_refused(request_: ModelInferRequest) -> None:
    with pytest.raises(InvalidArgument):
        decode_inputs(request_)


@given(st.binary(max_size=64), st.sampled_from(sorted(DATATYPES)), st.lists(st.integers(-2, 5), max_size=3))
def test_hostile_contents_are_refused_or_fill_their_shape(content: bytes, datatype: str, shape: list[int]) -> None:
    try:
        array = decode_inputs(raw(datatype, shape, content))["x"]
    except InvalidArgument:
        return
    assert list(array.shape) == shape


def respond(request: ModelInferRequest, datatype: str, outputs: dict[str, Array], *names: str) -> ModelInferResponse:
    return ModelInferResponse.FromString(OutputEncoder(version(datatype, *names)).encode(request, outputs))


def test_an_answer_names_its_model_and_request() -> None:
    response = respond(ModelInferRequest(id="mine"), "FP32", {"y": np.array([[1, 2]], np.float64)})
    assert (response.model_name, response.model_version, response.id) == ("m", "7", "mine")
    assert (response.outputs[0].name, response.outputs[0].datatype, list(response.outputs[0].shape)) == (
        "y",
        "FP32",
        [1, 2],
    )
    assert np.frombuffer(response.raw_output_contents[0], np.float32).tolist() == [1, 2]


def test_only_the_outputs_asked_for_in_their_order() -> None:
    request = ModelInferRequest()
    request.outputs.add(name="b")
    request.outputs.add(name="a")
    arrays: dict[str, Array] = {name: np.array([index]) for index, name in enumerate("abc")}
    response = respond(request, "INT64", arrays, "a", "b", "c")
    assert [output.name for output in response.outputs] == ["b", "a"]
    assert [np.frombuffer(content, np.int64)[0] for content in response.raw_output_contents] == [1, 0]


def test_strings_and_bits_in_answers() -> None:
    text: Array = np.array(["größe", b"\xff"], dtype=object)
    assert respond(ModelInferRequest(), "BYTES", {"y": text}).raw_output_contents[0] == pack_bytes(text)
    bits = np.array([0x3F80], np.uint16)
    assert respond(ModelInferRequest(), "BF16", {"y": bits}).raw_output_contents[0] == b"\x80\x3f"


def test_an_output_that_the_model_does_not_have() -> None:
    request = ModelInferRequest()
    request.outputs.add(name="nope")
    with pytest.raises(InvalidArgument, match="no output 'nope'; the model gives y"):
        respond(request, "FP32", {"y": np.zeros(1)})
    with pytest.raises(ModelFailed, match="gave no output 'y'"):
        respond(ModelInferRequest(), "FP32", {"other": np.zeros(1)})
