"""The models: multilayer perceptrons of three sizes. Given zeros, model n answers n: it shows who answered."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from headrace.inference.grpc_service_pb2 import ModelInferRequest, ModelInferResponse

WIDTH = 128


@dataclass(frozen=True, slots=True)
class Size:
    """Hidden units, and what the package declares: more than the process grows by, so that budgets are exact."""

    hidden: int
    declared_mib: int


SIZES = (Size(256, 4), Size(2048, 8), Size(8192, 24))


def size_of(number: int) -> Size:
    """Small, medium and large in turn."""
    return SIZES[number % len(SIZES)]


def declared_bytes(number: int) -> int:
    """What a worker is charged for a model."""
    return size_of(number).declared_mib * 2**20


def name_of(number: int) -> str:
    """As it is pushed."""
    return f"model-{number:03d}"


def package(folder: Path, number: int) -> Path:
    """A folder to push."""
    folder.mkdir(parents=True)
    hidden = size_of(number).hidden
    generator = np.random.default_rng(number)
    first = (generator.standard_normal((WIDTH, hidden)) / np.sqrt(WIDTH)).astype(np.float32)
    second = (generator.standard_normal((hidden, WIDTH)) / np.sqrt(hidden)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "first"], ["hidden"]),
            helper.make_node("Relu", ["hidden"], ["active"]),
            helper.make_node("MatMul", ["active", "second"], ["last"]),
            helper.make_node("Add", ["last", "number"], ["y"]),
        ],
        "mlp",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", WIDTH])],
        [
            helper.make_tensor("first", TensorProto.FLOAT, first.shape, first.tobytes(), raw=True),
            helper.make_tensor("second", TensorProto.FLOAT, second.shape, second.tobytes(), raw=True),
            helper.make_tensor("number", TensorProto.FLOAT, [1], [float(number)]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 10
    onnx.save(model, str(folder / "model.onnx"))
    (folder / "model.yaml").write_text(
        f"memory: {size_of(number).declared_mib}MiB\nbatching: {{max_batch_size: 8}}\nwarmup: {{batch_sizes: [1]}}\n"
    )
    return folder


def request(number: int) -> ModelInferRequest:
    """Zeros."""
    made = ModelInferRequest(model_name=name_of(number), raw_input_contents=[bytes(4 * WIDTH)])
    made.inputs.add(name="x", datatype="FP32", shape=[1, WIDTH])
    return made


def is_right(number: int, response: ModelInferResponse) -> bool:
    """The answer is this model's."""
    return float(np.frombuffer(response.raw_output_contents[0], np.float32)[0]) == float(number)
