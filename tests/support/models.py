"""Small models that the tests make: ONNX, and one torch.export archive."""

from collections.abc import Callable
from itertools import pairwise
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


def add(path: Path, amount: float) -> Path:
    """x FP32 [N, 16] → y = x + amount: versions that are told apart by what they answer."""
    return _save(
        path,
        helper.make_graph(
            [helper.make_node("Add", ["x", "amount"], ["y"])],
            "add",
            [helper.make_tensor_value_info("x", FLOAT, ["N", 16])],
            [helper.make_tensor_value_info("y", FLOAT, ["N", 16])],
            [helper.make_tensor("amount", FLOAT, [1], [amount])],
        ),
    )


def always_fails(path: Path) -> Path:
    """x FP32 [N, 16] → y FP32 [N, 16]: loads, and fails on every request: its table has one row."""
    return _save(
        path,
        helper.make_graph(
            [
                helper.make_node("ReduceMean", ["x"], ["mean"], axes=[1], keepdims=0),
                helper.make_node("Mul", ["mean", "zero"], ["zeros"]),
                helper.make_node("Add", ["zeros", "thousand"], ["thousands"]),
                helper.make_node("Cast", ["thousands"], ["index"], to=INT64),
                helper.make_node("Gather", ["table", "index"], ["row"]),
                helper.make_node("Add", ["x", "row"], ["y"]),
            ],
            "always_fails",
            [helper.make_tensor_value_info("x", FLOAT, ["N", 16])],
            [helper.make_tensor_value_info("y", FLOAT, ["N", 16])],
            [
                helper.make_tensor("zero", FLOAT, [1], [0.0]),
                helper.make_tensor("thousand", FLOAT, [1], [1000.0]),
                helper.make_tensor("table", FLOAT, [1, 16], [0.0] * 16),
            ],
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


def mlp(path: Path, sizes: tuple[int, ...] = (512, 2048, 2048, 512)) -> Path:
    """x FP32 [N, sizes[0]] → y [N, sizes[-1]]: matrices and ReLUs, weights from a fixed seed."""
    random = np.random.default_rng(0)
    nodes, weights, last = [], [], "x"
    for layer, (rows, columns) in enumerate(pairwise(sizes)):
        matrix = (random.standard_normal((rows, columns)) / np.sqrt(rows)).astype(np.float32)
        weights.append(helper.make_tensor(f"w{layer}", FLOAT, matrix.shape, matrix.tobytes(), raw=True))
        end = layer == len(sizes) - 2
        nodes.append(helper.make_node("MatMul", [last, f"w{layer}"], ["y" if end else f"m{layer}"]))
        if not end:
            last = f"r{layer}"
            nodes.append(helper.make_node("Relu", [f"m{layer}"], [last]))
    inputs = [helper.make_tensor_value_info("x", FLOAT, ["N", sizes[0]])]
    outputs = [helper.make_tensor_value_info("y", FLOAT, ["N", sizes[-1]])]
    return _save(path, helper.make_graph(nodes, "mlp", inputs, outputs, weights))


def two_inputs(path: Path) -> Path:
    """a FP32 [N, 4], b FP32 [N, 4] → total = a + b, share FP32 [N, 4] = a / (a + b)."""
    return _save(
        path,
        helper.make_graph(
            [helper.make_node("Add", ["a", "b"], ["total"]), helper.make_node("Div", ["a", "total"], ["share"])],
            "two_inputs",
            [helper.make_tensor_value_info(name, FLOAT, ["N", 4]) for name in ("a", "b")],
            [helper.make_tensor_value_info(name, FLOAT, ["N", 4]) for name in ("total", "share")],
        ),
    )


def two_axes(path: Path) -> Path:
    """left FP32 [N, 2], right FP32 [M, 2] → both FP32 [K, 2]: three free first axes, so no batch axis."""
    return _save(
        path,
        helper.make_graph(
            [helper.make_node("Concat", ["left", "right"], ["both"], axis=0)],
            "two_axes",
            [
                helper.make_tensor_value_info("left", FLOAT, ["N", 2]),
                helper.make_tensor_value_info("right", FLOAT, ["M", 2]),
            ],
            [helper.make_tensor_value_info("both", FLOAT, ["K", 2])],
        ),
    )


def fixed_batch(path: Path) -> Path:
    """x FP32 [2, 3] → y = -x. No batch axis."""
    return _save(
        path,
        helper.make_graph(
            [helper.make_node("Neg", ["x"], ["y"])],
            "fixed_batch",
            [helper.make_tensor_value_info("x", FLOAT, [2, 3])],
            [helper.make_tensor_value_info("y", FLOAT, [2, 3])],
        ),
    )


def free_axes(path: Path) -> Path:
    """x FP32 [N, length] → y = -x: a second free axis."""
    return _save(
        path,
        helper.make_graph(
            [helper.make_node("Neg", ["x"], ["y"])],
            "free_axes",
            [helper.make_tensor_value_info("x", FLOAT, ["N", "length"])],
            [helper.make_tensor_value_info("y", FLOAT, ["N", "length"])],
        ),
    )


def weights_beside(path: Path, location: str = "weights.bin") -> Path:
    """As `mlp`, small, with its weights in a file beside the graph."""
    model = onnx.load(str(mlp(path, (8, 64, 8))))
    onnx.save(model, str(path), save_as_external_data=True, location=location, size_threshold=16)
    return path


def exported_sum(path: Path, most: int = 32) -> Path:
    """A .pt2: x FP32 [n, 3], y FP32 [n, 3] → output0 = x + y, output1 [n] = the sums of x; n is at most `most`."""
    import torch

    class Sums(torch.nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x + y, x.sum(1)

    rows = torch.export.Dim("n", min=1, max=most)
    example = (torch.ones(4, 3), torch.ones(4, 3))
    torch.export.save(torch.export.export(Sums(), example, dynamic_shapes={"x": {0: rows}, "y": {0: rows}}), path)
    return path


def row_sum(path: Path) -> Path:
    """x FP32 [N, length] → sum FP32 [N, 1] of each row: zeros behind a row change nothing."""
    return _save(
        path,
        helper.make_graph(
            [helper.make_node("ReduceSum", ["x", "axis"], ["sum"], keepdims=1)],
            "row_sum",
            [helper.make_tensor_value_info("x", FLOAT, ["N", "length"])],
            [helper.make_tensor_value_info("sum", FLOAT, ["N", 1])],
            [helper.make_tensor("axis", INT64, [1], [1])],
        ),
    )


def fives(path: Path) -> Path:
    """x FP32 [N, length] → y FP32 [N, 5] = x, whose length must be five."""
    return _save(
        path,
        helper.make_graph(
            [helper.make_node("Add", ["x", "zeros"], ["sum"]), helper.make_node("Reshape", ["sum", "to"], ["y"])],
            "fives",
            [helper.make_tensor_value_info("x", FLOAT, ["N", "length"])],
            [helper.make_tensor_value_info("y", FLOAT, ["N", 5])],
            [helper.make_tensor("zeros", FLOAT, [1], [0.0]), helper.make_tensor("to", INT64, [2], [-1, 5])],
        ),
    )


def exported_double(path: Path, dtype: str = "bfloat16") -> Path:
    """A .pt2: x [n, 4] of a torch type → output0 = x + x."""
    import torch

    class Double(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + x

    rows = torch.export.Dim("n", min=1, max=32)
    example = (torch.ones(4, 4, dtype=getattr(torch, dtype)),)
    torch.export.save(torch.export.export(Double(), example, dynamic_shapes={"x": {0: rows}}), path)
    return path


def folder(path: Path, make: Callable[[Path], Path], manifest: str) -> Path:
    """A package folder: the model that `make` makes, and a model.yaml."""
    path.mkdir(parents=True)
    make(path / "model.onnx")
    (path / "model.yaml").write_text(manifest)
    return path
