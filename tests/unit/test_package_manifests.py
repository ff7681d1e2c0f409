"""Packages: what a model.yaml says arrives, and what it may not say is refused with the line and the key."""

from collections.abc import Callable
from pathlib import Path

import pytest

from headrace.packages import Package, PackageError, read_package
from tests.support import models

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
