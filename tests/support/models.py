"""Small ONNX models that the tests make."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

FLOAT, INT64, STRING = TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING


def _save(path: Path, graph: onnx.GraphProto) -> Path:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 10
    onnx.save(model, str(path))
    return path


def add_one(path: Path, width: int = 16) -> Path:
    """x FP32 [N, width] → y = x + 1."""
    return _save(
        path,
        helper.make_graph(
            [helper.make_node("Add", ["x", "one"], ["y"])],
            "add_one",
            [helper.make_tensor_value_info("x", FLOAT, ["N", width])],
            [helper.make_tensor_value_info("y", FLOAT, ["N", width])],
            [helper.make_tensor("one", FLOAT, [1], [1.0])],
        ),
    )


def double(path: Path) -> Path:
    """x INT64 [N, 1] → y = x + x."""
    return _save(
        path,
        helper.make_graph(
            [helper.make_node("Add", ["x", "x"], ["y"])],
            "double",
            [helper.make_tensor_value_info("x", INT64, ["N", 1])],
            [helper.make_tensor_value_info("y", INT64, ["N", 1])],
        ),
    )


def echo_text(path: Path) -> Path:
    """text BYTES [N, 1] → echoed."""
    return _save(
        path,
        helper.make_graph(
            [helper.make_node("Identity", ["text"], ["echoed"])],
            "echo_text",
            [helper.make_tensor_value_info("text", STRING, ["N", 1])],
            [helper.make_tensor_value_info("echoed", STRING, ["N", 1])],
        ),
    )


def look_up(path: Path) -> Path:
    """index INT64 [N, 1] → square FP32 [N, 1]; an index over 9 makes the whole batch fail."""
    return _save(
        path,
        helper.make_graph(
            [helper.make_node("Gather", ["table", "index"], ["square"])],
            "look_up",
            [helper.make_tensor_value_info("index", INT64, ["N", 1])],
            [helper.make_tensor_value_info("square", FLOAT, ["N", 1])],
            [helper.make_tensor("table", FLOAT, [10], [float(number * number) for number in range(10)])],
        ),
    )


def burn(path: Path) -> Path:
    """turns INT64 [] → sum FP32 [256, 256]: each turn multiplies two matrices. No batch axis."""
    weights = (np.eye(256) * 0.5).astype(np.float32)
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go_in"], ["go_out"]),
            helper.make_node("MatMul", ["carried", "weights"], ["carried_out"]),
        ],
        "turn",
        [
            helper.make_tensor_value_info("turn", INT64, []),
            helper.make_tensor_value_info("go_in", TensorProto.BOOL, []),
            helper.make_tensor_value_info("carried", FLOAT, [256, 256]),
        ],
        [
            helper.make_tensor_value_info("go_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("carried_out", FLOAT, [256, 256]),
        ],
    )
    graph = helper.make_graph(
        [helper.make_node("Loop", ["turns", "", "weights"], ["sum"], body=body)],
        "burn",
        [helper.make_tensor_value_info("turns", INT64, [])],
        [helper.make_tensor_value_info("sum", FLOAT, [256, 256])],
        [helper.make_tensor("weights", FLOAT, weights.shape, weights.tobytes(), raw=True)],
    )
    return _save(path, graph)
