"""Packages: what is read from graphs, and what is refused, with the file, the line and the key."""

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headrace.packages import Package, PackageError, read_package
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


class Evil:
    """Unpickling one makes a file."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> Any:
        return Path.touch, (self.proof,)


def test_no_pickle_in_a_torch_archive_is_loaded(tmp_path: Path) -> None:
    import torch

    good = models.exported_sum(tmp_path / "good.pt2")
    evil, proof = tmp_path / "evil.pt2", tmp_path / "proof"
    torch.save(Evil(proof), tmp_path / "payload")
    payload = (tmp_path / "payload").read_bytes()
    config = '{"config": {"w": {"path_name": "weight_0", "is_param": true, "use_pickle": true, "tensor_meta": null}}}'
    cases: list[tuple[str, bytes, str]] = [
        ("data/sample_inputs/model.pt", payload, "sample inputs hold more than tensors"),
        ("data/weights/model_weights_config.json", config.encode(), "'w' is pickled"),
        ("data/weights/model.pt", payload, "may run code"),
        ("data/constants/opaque_obj_0", payload, "may run code"),
        ("data/aotinductor/model/x.so", b"", "may run code"),
    ]
    for name, content, message in cases:
        with zipfile.ZipFile(good) as source, zipfile.ZipFile(evil, "w") as target:
            root = source.namelist()[0].split("/")[0]
            for entry in source.namelist():
                if entry != f"{root}/{name}":
                    target.writestr(entry, source.read(entry))
            target.writestr(f"{root}/{name}", content)
        with pytest.raises(PackageError, match=message):
            read_package(evil)
    with zipfile.ZipFile(evil, "w") as target:
        target.writestr("version", "1.0")
        target.writestr("serialized_state_dict.pt", payload)
    with pytest.raises(PackageError, match=r"evil\.pt2"):
        read_package(evil)
    assert not proof.exists()


MANIFEST = """\
runtime: onnx
description: negates
inputs:
  x: {shape: [-1, 5]}
batching:
  max_batch_size: 8
  max_queue_delay_ms: 2.5
  padding: true
  padding_value: 1
queue:
  max_requests: 10
  default_timeout_ms: 500
  max_attempts: 2
  priority_levels: 3
  default_priority_level: 2
warmup:
  batch_sizes: [1, 8]
  shapes: {x: [5]}
memory: 512MiB
parameters: {owner: vision}
"""


def folder(tmp_path: Path, manifest: str, make: Callable[[Path], Path] = models.free_axes) -> Path:
    """A package with a model.yaml."""
    make(tmp_path / "model.onnx")
    (tmp_path / "model.yaml").write_text(manifest)
    return tmp_path


def test_every_key_of_the_manifest_arrives(tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "names.txt").write_text("a\nb\n")
    package: Package = read_package(folder(tmp_path, MANIFEST))
    spec = package.spec
    assert sorted(package.files) == ["labels/names.txt", "model.onnx"]
    assert (spec.description, spec.memory_bytes, dict(spec.parameters)) == ("negates", 2**29, {"owner": "vision"})
    assert list(spec.inputs[0].shape) == [-1, 5]
    assert (spec.batching.max_batch_size, spec.batching.max_queue_delay_us) == (8, 2500)
    assert (spec.batching.padding, spec.batching.padding_value) == (True, 1.0)
    assert (spec.queue.max_requests, spec.queue.default_timeout_ms, spec.queue.max_attempts) == (10, 500, 2)
    assert (spec.queue.priority_levels, spec.queue.default_priority_level) == (3, 2)
    assert (list(spec.warmup.batch_sizes), list(spec.warmup.shapes["x"].dims)) == ([1, 8], [5])


@pytest.mark.parametrize("manifest", ["", "# nothing\n", "batching:\n  max_queue_delay_us: 0\n"])
def test_a_manifest_may_say_little(tmp_path: Path, manifest: str) -> None:
    assert read_package(folder(tmp_path, manifest)).spec.batching.max_batch_size == 64


def test_a_folder_needs_no_manifest(tmp_path: Path) -> None:
    models.add_one(tmp_path / "model.onnx")
    assert read_package(tmp_path).spec.entry == "model.onnx"


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ("runtime: onnx\nbatchin: 3\n", r"line 2, batchin: unknown key; known are runtime, entry"),
        ("batching:\n  size: 3\n", r"line 2, batching.size: unknown key; known are max_batch_size"),
        ("inputs:\n  x:\n    type: FP32\n    shape: [-1, 2]\n", r"line 3, inputs.x.type: unknown key; known are shape"),
        ("inputs:\n  x: {}\n", r"line 2, inputs.x.shape: this key is missing"),
        ("batching:\n  max_batch_size: many\n", r"line 2, batching.max_batch_size: .*integer, got 'many'"),
        ("batching:\n  max_batch_size: -1\n", r"line 2, batching.max_batch_size: .*greater"),
        ("batching:\n  max_queue_delay_ms: '5'\n", r"line 2, batching.max_queue_delay_ms: .*number, got '5'"),
        ("batching:\n  padding: 1\n", r"line 2, batching.padding: .*boolean, got 1"),
        ("\nbatching:\n", r"line 2, batching: expected keys and values, got None"),
        ("batching:\n  max_queue_delay_ms: 1\n  max_queue_delay_us: 1\n", r"line 3, .*delay is given twice"),
        ("queue:\n  priority_levels: 3\n", r"line 1, queue.default_priority_level: .*expected 1, the highest, to 3"),
        ("queue:\n  priority_levels: 3\n  default_priority_level: 4\n", r"line 3, .*expected 1, the highest, to 3"),
        ("queue:\n  default_priority_level: 1\n", r"line 2, .*there are no levels.*set queue.priority_levels"),
        ("queue:\n  priority_levels: 0\n", r"line 2, queue.priority_levels: .*greater"),
        ("runtime: tensorflow\n", r"line 1, runtime: .*'onnx', 'torch'.*got 'tensorflow'"),
        ("memory: lots\n", r"line 1, memory: expected a number of bytes, or one with a unit like"),
        ("parameters:\n  retries: 3\n", r"line 2, parameters.retries: .*string, got 3"),
        (
            "warmup:\n  batch_sizes:\n    - 1\n    - 99\n",
            r"line 4, warmup.batch_sizes.1: 99 is over the largest batch, 64",
        ),
        ("warmup:\n  shapes: {z: [1]}\n", r"line 2, warmup.shapes.z: no such input; the model takes x"),
        ("warmup:\n  shapes: {x: [1, 2]}\n", r"line 2, warmup.shapes.x: expected sizes for \[-1\]"),
        ("inputs:\n  z: {shape: [1]}\n", r"line 2, inputs.z: the graph has no such name; it has x"),
        ("inputs:\n  x: {shape: [1]}\n", r"line 2, inputs.x.shape: the graph says \[-1, -1\]"),
        ("entry: other.onnx\n", r"line 1, entry: 'other.onnx' is not in the folder; there is model.onnx"),
        ("entry: ../model.onnx\n", r"line 1, entry: .* is not in the folder"),
        ("memory: 1\nmemory: 2\n", r"line 2, memory: this key was given before"),
        ("a: [1\n", r"line 2: not YAML"),
        ("- 1\n- 2\n", r"line 1, the document: expected keys and values"),
        ("when: 2024-99-99\n", r"line 1: cannot be read"),
        ("x: !!python/object/apply:os.system [ls]\n", r"line 1: cannot be read: could not determine a constructor"),
    ],
)
def test_a_wrong_manifest_names_line_and_key(tmp_path: Path, manifest: str, message: str) -> None:
    with pytest.raises(PackageError, match=rf"model\.yaml, {message}"):
        read_package(folder(tmp_path, manifest))


def test_a_batch_size_for_a_graph_without_batch_axis_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match=r"line 1, batching.max_batch_size: the graph has no free first axis"):
        read_package(folder(tmp_path, "batching: {max_batch_size: 4}\n", models.fixed_batch))


def test_a_narrowed_batch_axis_is_no_batch_axis(tmp_path: Path) -> None:
    package = read_package(folder(tmp_path, "inputs: {x: {shape: [1, 5]}}\n"))
    assert package.spec.batching.max_batch_size == 0


@pytest.mark.parametrize("name", ["model.pt", "weights.pkl", "scaler.joblib", "x.bin", "MODEL.PTH"])
def test_pickles_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x80\x04N.")
    with pytest.raises(PackageError, match=f"{name}.*pickles and can run any code"):
        read_package(tmp_path / name)
    models.add_one(tmp_path / "model.onnx")
    with pytest.raises(PackageError, match=f"{name}.*pickles and can run any code"):
        read_package(tmp_path)


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="no such file or folder"):
        read_package(tmp_path / "absent")
    (tmp_path / "broken.onnx").write_bytes(b"not a graph")
    with pytest.raises(PackageError, match=r"broken\.onnx: "):
        read_package(tmp_path / "broken.onnx")
    (tmp_path / "broken.pt2").write_bytes(b"not an archive")
    with pytest.raises(PackageError, match=r"broken\.pt2: .*cannot load it"):
        read_package(tmp_path / "broken.pt2")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(PackageError, match=r"notes\.txt: expected a \.onnx file"):
        read_package(tmp_path / "notes.txt")
    with pytest.raises(PackageError, match=r"found broken\.onnx, broken\.pt2"):
        read_package(tmp_path)


def test_an_operator_that_the_runtime_lacks_is_refused_with_the_reason(tmp_path: Path) -> None:
    import onnx

    path = models.add_one(tmp_path / "m.onnx")
    model = onnx.load(str(path))
    model.graph.node[0].op_type = "Invented"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(PackageError, match=r"ONNX Runtime .* cannot load it: .*Invented"):
        read_package(path)


def test_links_are_refused(tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("x")
    package = tmp_path / "package"
    package.mkdir()
    models.add_one(package / "model.onnx")
    (package / "link.txt").symlink_to(tmp_path / "outside")
    with pytest.raises(PackageError, match=r"link\.txt: links are not followed"):
        read_package(package)
