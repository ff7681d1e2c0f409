"""What the gateway refuses before a queue slot is spent."""

import struct

import pytest

from headrace.inference.grpc_service_pb2 import ModelInferRequest
from headrace.v1.model_pb2 import BatchingSpec, ModelSpec, TensorSpec
from services.common.errors import InvalidArgument, Unimplemented
from services.gateway.protocol.signature import Signature

SPEC = ModelSpec(
    inputs=[
        TensorSpec(name="x", datatype="FP32", shape=[-1, 2]),
        TensorSpec(name="tag", datatype="BYTES", shape=[-1, 1], optional=True),
        TensorSpec(name="small", datatype="INT8", shape=[-1], optional=True),
        TensorSpec(name="half", datatype="FP16", shape=[-1], optional=True),
    ],
    outputs=[TensorSpec(name="y", datatype="FP32", shape=[-1, 2])],
    batching=BatchingSpec(max_batch_size=4),
)
SIGNATURE = Signature.of(SPEC)


def request(*inputs: tuple[str, str, list[int]], raw: list[bytes] | None = None) -> ModelInferRequest:
    message = ModelInferRequest(model_name="m", raw_input_contents=raw or [])
    for name, datatype, shape in inputs:
        message.inputs.add(name=name, datatype=datatype, shape=shape)
    return message


def packed(*values: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(value)) + value for value in values)


def test_raw_contents_that_fit_give_the_number_of_rows() -> None:
    good = request(("x", "FP32", [3, 2]), ("tag", "BYTES", [3, 1]), raw=[bytes(24), packed(b"a", b"", b"ccc")])
    assert SIGNATURE.check(good) == 3


def test_typed_contents_that_fit() -> None:
    good = request(("x", "FP32", [1, 2]))
    good.inputs[0].contents.fp32_contents.extend([1.0, 2.0])
    assert SIGNATURE.check(good) == 1


X = ("x", "FP32", [1, 2])
REFUSED = {
    "an unknown input": (request(("z", "FP32", [1, 2]), raw=[bytes(8)]), "no input 'z'; the model takes"),
    "a missing input": (request(), "missing: 'x'"),
    "an input twice": (request(X, X, raw=[bytes(8), bytes(8)]), "given twice"),
    "the wrong datatype": (request(("x", "FP64", [1, 2]), raw=[bytes(16)]), "the model takes FP32"),
    "the wrong rank": (request(("x", "FP32", [2]), raw=[bytes(8)]), r"shape \[2\]; the model takes \[-1, 2\]"),
    "a negative size": (request(("x", "FP32", [-1, 2]), raw=[b""]), "shape"),
    "a wrong size": (request(("x", "FP32", [1, 3]), raw=[bytes(12)]), "shape"),
    "too many rows": (request(("x", "FP32", [5, 2]), raw=[bytes(40)]), "takes 1 to 4"),
    "no rows": (request(("x", "FP32", [0, 2]), raw=[b""]), "takes 1 to 4"),
    "rows that disagree": (
        request(("x", "FP32", [2, 2]), ("tag", "BYTES", [1, 1]), raw=[bytes(16), packed(b"a")]),
        "all must agree",
    ),
    "too few raw bytes": (request(X, raw=[bytes(7)]), "7 raw bytes.*take 8"),
    "raw for some inputs only": (request(X, ("tag", "BYTES", [1, 1]), raw=[bytes(8)]), "1 entries for 2 inputs"),
    "a cut-off string": (
        request(X, ("tag", "BYTES", [1, 1]), raw=[bytes(8), packed(b"abc")[:-1]]),
        "its last one is cut off",
    ),
    "a string too many": (
        request(X, ("tag", "BYTES", [1, 1]), raw=[bytes(8), packed(b"a", b"b")]),
        "holds 2 length-prefixed elements",
    ),
    "a length without room": (request(X, ("tag", "BYTES", [1, 1]), raw=[bytes(8), b"\1\0"]), "no room"),
    "no contents at all": (request(X), "0 values in contents; its shape takes 2"),
    "typed contents for FP16": (request(("half", "FP16", [1])), "no typed contents"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_is_refused_with_a_reason(case: str) -> None:
    message, reason = REFUSED[case]
    with pytest.raises(InvalidArgument, match=reason):
        SIGNATURE.check(message)


def test_contents_in_the_wrong_field_are_refused() -> None:
    wrong = request(X)
    wrong.inputs[0].contents.fp64_contents.extend([1.0, 2.0])
    with pytest.raises(InvalidArgument, match=r"fills contents\.fp64_contents; fill contents\.fp32_contents"):
        SIGNATURE.check(wrong)


def test_values_outside_a_small_integer_type_are_refused() -> None:
    wrong = request(("small", "INT8", [1]))
    wrong.inputs[0].contents.int_contents.append(128)
    with pytest.raises(InvalidArgument, match="outside the range of INT8"):
        SIGNATURE.check(wrong)


def test_both_kinds_of_contents_are_refused() -> None:
    wrong = request(X, raw=[bytes(8)])
    wrong.inputs[0].contents.fp32_contents.extend([1.0, 2.0])
    with pytest.raises(InvalidArgument, match="both typed contents and raw"):
        SIGNATURE.check(wrong)


@pytest.mark.parametrize("raw", [False, True])
def test_text_that_is_none_is_refused_where_the_runtime_has_text(raw: bool) -> None:
    wrong = request(("text", "BYTES", [2]), raw=[packed("ä".encode(), b"\xff")] if raw else None)
    if not raw:
        wrong.inputs[0].contents.bytes_contents.extend(["ä".encode(), b"\xff"])
    text = TensorSpec(name="text", datatype="BYTES", shape=[-1])
    assert Signature.of(ModelSpec(runtime="torch", inputs=[text])).check(wrong) == 1
    with pytest.raises(InvalidArgument, match="element 1 is not UTF-8"):
        Signature.of(ModelSpec(runtime="onnx", inputs=[text])).check(wrong)


def test_unknown_outputs_and_shared_memory_are_refused() -> None:
    wrong = request(X, raw=[bytes(8)])
    wrong.outputs.add(name="q")
    with pytest.raises(InvalidArgument, match="no output 'q'; the model gives 'y'"):
        SIGNATURE.check(wrong)
    shared = request(X, raw=[bytes(8)])
    shared.inputs[0].parameters["shared_memory_region"].string_param = "r"
    with pytest.raises(Unimplemented, match="shared memory"):
        SIGNATURE.check(shared)
