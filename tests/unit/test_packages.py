"""Packages: what is read from ONNX graphs and torch archives, and which of these are refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headrace.packages import PackageError, read_package
from tests.support import models

Tensors = list[tuple[str, str, list[int]]]


def tensors(specs: Any) -> Tensors:
    """Name, datatype and shape of each."""
    return [(spec.name, spec.datatype, list(spec.shape)) for spec in specs]


@pytest.mark.parametrize(
    ("make", "inputs", "outputs", "batch"),
    [
        (models.add_one, [("x", "FP32", [-1, 16])], [("y", "FP32", [-1, 16])], 64),
        (models.double, [("x", "INT64", [-1, 1])], [("y", "INT64", [-1, 1])], 64),
        (models.echo_text, [("text", "BYTES", [-1, 1])], [("echoed", "BYTES", [-1, 1])], 64),
        (
            models.two_inputs,
            [("a", "FP32", [-1, 4]), ("b", "FP32", [-1, 4])],
            [("total", "FP32", [-1, 4]), ("share", "FP32", [-1, 4])],
            64,
        ),
        (models.fixed_batch, [("x", "FP32", [2, 3])], [("y", "FP32", [2, 3])], 0),
        (
            models.two_axes,
            [("left", "FP32", [-1, 2]), ("right", "FP32", [-1, 2])],
            [("both", "FP32", [-1, 2])],
            0,
        ),
        (models.burn, [("turns", "INT64", [])], [("sum", "FP32", [256, 256])], 0),
    ],
)
def test_a_bare_onnx_file(
    tmp_path: Path, make: Callable[[Path], Path], inputs: Tensors, outputs: Tensors, batch: int
) -> None:
    path = make(tmp_path / "model.onnx")
    package = read_package(path)
    assert package.spec.runtime == "onnx"
    assert tensors(package.spec.inputs) == inputs
    assert tensors(package.spec.outputs) == outputs
    assert package.spec.batching.max_batch_size == batch
    assert (package.spec.entry, package.files) == ("model.onnx", {"model.onnx": path})


def test_weights_beside_a_bare_file_come_along(tmp_path: Path) -> None:
    path = models.weights_beside(tmp_path / "model.onnx")
    assert sorted(read_package(path).files) == ["model.onnx", "weights.bin"]


def test_weights_beside_the_graph_in_a_folder_are_no_pickle(tmp_path: Path) -> None:
    models.weights_beside(tmp_path / "model.onnx")
    assert sorted(read_package(tmp_path).files) == ["model.onnx", "weights.bin"]


def test_weights_that_are_not_there_are_named(tmp_path: Path) -> None:
    path = models.weights_beside(tmp_path / "model.onnx")
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(PackageError, match=r"model\.onnx: keeps weights in 'weights.bin', which is not there"):
        read_package(path)


def test_weights_outside_of_the_package_are_refused(tmp_path: Path) -> None:
    import onnx

    path = models.weights_beside(tmp_path / "model.onnx")
    model = onnx.load(str(path), load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "../secrets"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(PackageError, match="outside of the package"):
        read_package(path)


def test_a_torch_archive(tmp_path: Path) -> None:
    package = read_package(models.exported_sum(tmp_path / "sum.pt2"))
    assert package.spec.runtime == "torch"
    assert tensors(package.spec.inputs) == [("x", "FP32", [-1, 3]), ("y", "FP32", [-1, 3])]
    assert tensors(package.spec.outputs) == [("output0", "FP32", [-1, 3]), ("output1", "FP32", [-1])]
    assert package.spec.batching.max_batch_size == 32


def exported(path: Path, forward: Any, *arguments: Any, **keywords: Any) -> Path:
    """An archive of a module with this forward method."""
    import torch

    module = type("Module", (torch.nn.Module,), {"forward": forward})()
    torch.export.save(torch.export.export(module, arguments, keywords), path)
    return path


def test_torch_arguments_and_results_that_requests_cannot_name_are_refused(tmp_path: Path) -> None:
    import torch

    one = torch.ones(2)
    with pytest.raises(PackageError, match="keyword or nested arguments"):
        read_package(exported(tmp_path / "keyword.pt2", lambda self, *, x: x + 1, x=one))
    with pytest.raises(PackageError, match="keyword or nested arguments"):
        read_package(exported(tmp_path / "nested.pt2", lambda self, xs: xs[0] + xs[1], [one, one]))
    with pytest.raises(PackageError, match=r"returns a .*dict"):
        read_package(exported(tmp_path / "dict.pt2", lambda self, x: {"y": x + 1}, one))
