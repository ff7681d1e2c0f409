"""headrace import-triton without a registry: what is carried over, what is told, what is refused."""

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from headrace.cli.main import app
from headrace.packages import read_package
from tests.support import models
from tests.support.triton_repository import add_ensemble, add_model, add_versions

ONNX = 'backend: "onnxruntime" max_batch_size: 8 '


def imported(repository: Path, *options: str, code: int = 0) -> list[dict[str, Any]]:
    """What the command prints as JSON."""
    result = CliRunner().invoke(app, ["import-triton", str(repository), "--json", *options])
    assert result.exit_code == code, result.output
    rows: list[dict[str, Any]] = json.loads(result.stdout)
    return rows


def findings(rows: list[dict[str, Any]]) -> dict[str, tuple[str, str]]:
    """Setting → (outcome, reason), over all rows."""
    return {found["setting"]: (found["outcome"], found["reason"]) for row in rows for found in row["findings"]}


def test_versions_that_triton_serves_become_packages_that_can_be_pushed(tmp_path: Path) -> None:
    add_versions(tmp_path / "repository")
    rows = imported(tmp_path / "repository", "--out", str(tmp_path / "out"))
    assert [(row["model"], row["version"], row["state"]) for row in rows] == [
        ("add", 1, "written"),
        ("add", 3, "written"),
    ]
    spec = read_package(tmp_path / "out" / "add" / "3").spec
    assert spec.batching.max_batch_size == 8
    assert spec.batching.max_queue_delay_us == 300
    assert spec.queue.max_requests == 50
    assert (spec.queue.priority_levels, spec.queue.default_priority_level) == (3, 2)
    assert list(spec.warmup.batch_sizes) == [4]
    assert spec.instances == 2
    assert dict(spec.parameters) == {"intra_op_thread_count": "2"}


def test_nothing_of_the_config_is_dropped_silently(tmp_path: Path) -> None:
    add_versions(tmp_path)
    told = findings(imported(tmp_path))
    assert {setting: outcome for setting, (outcome, _) in told.items()} == {
        "version_policy": "left out",
        "output.label_filename": "left out",
        "response_cache": "left out",
        "instance_group": "changed",
        "parameters": "changed",
        "model_warmup": "changed",
        "dynamic_batching.preferred_batch_size": "left out",
        "dynamic_batching.priority_levels": "changed",
        "dynamic_batching.default_queue_policy.max_queue_size": "changed",
        "dynamic_batching.default_queue_policy.default_timeout_microseconds": "left out",
    }


def test_a_dry_run_writes_nothing_and_shows_the_table(tmp_path: Path) -> None:
    add_versions(tmp_path / "repository")
    command = ["import-triton", str(tmp_path / "repository"), "--dry-run", "--out", str(tmp_path / "out"), "--push"]
    result = CliRunner().invoke(app, command, env={"COLUMNS": "240"})
    assert result.exit_code == 0
    assert not (tmp_path / "out").exists()
    assert "preferred_batch_size" in result.output
    assert "nothing was written" in result.output


@pytest.mark.parametrize(
    ("policy", "options", "versions"),
    [
        ("", [], [10]),
        ("version_policy { latest { num_versions: 2 } }", [], [2, 10]),
        ("version_policy { all { } }", [], [1, 2, 10]),
        ("version_policy { specific { versions: [ 2 ] } }", [], [2]),
        ("", ["--all-versions"], [1, 2, 10]),
    ],
)
def test_version_policies(tmp_path: Path, policy: str, options: list[str], versions: list[int]) -> None:
    add_model(tmp_path, "m", config=ONNX + policy, versions=(1, 2, 10))
    rows = imported(tmp_path, *options)
    assert [row["version"] for row in rows] == versions


def test_without_a_config_the_graph_decides(tmp_path: Path) -> None:
    add_model(tmp_path / "repository", "m")
    rows = imported(tmp_path / "repository", "--out", str(tmp_path / "out"))
    assert findings(rows)["config.pbtxt"][0] == "changed"
    assert read_package(tmp_path / "out" / "m" / "1").spec.batching.max_batch_size == 64


def test_a_broken_config_is_refused_with_its_line_and_the_others_are_imported(tmp_path: Path) -> None:
    add_model(tmp_path, "broken", config='name: "broken"\nmax_batch_size: 8\ninput [\n  { nome: "x" }\n]\n')
    add_model(tmp_path, "good", config=ONNX)
    broken, good = imported(tmp_path, code=2)
    assert broken["findings"][0]["setting"].startswith("config.pbtxt, line 4, column ")
    assert "nome" in broken["findings"][0]["reason"]
    assert good["state"] == "can be imported"


@pytest.mark.parametrize(
    ("config", "file", "words"),
    [
        ('platform: "tensorrt_plan"', "model.plan", ("tensorrt", "export")),
        ('platform: "tensorflow_savedmodel"', "model.savedmodel", ("tensorflow", "tf2onnx")),
        ('backend: "python"', "model.py", ("python", "caller")),
        (None, "model.plan", ("tensorrt", "export")),
        (None, "weights.h5", ("expected model.onnx", "weights.h5")),
        ('platform: "ensemble"', "empty", ("ensemble", "without steps")),
        ('backend: "brand_new"', "model.x", ("brand_new", "no such runtime")),
        ('backend: "onnxruntime"', "other.onnx", ("no such file", "default_model_filename")),
    ],
)
def test_what_is_not_run_here_is_refused_by_name(
    tmp_path: Path, config: str | None, file: str, words: tuple[str, ...]
) -> None:
    add_model(tmp_path, "m", config=config, file=file)
    (row,) = imported(tmp_path, code=2)
    assert row["state"] == "refused"
    (found,) = row["findings"]
    assert all(word in f"{found['setting']} {found['reason']}" for word in words), found


@pytest.mark.parametrize(
    ("config", "setting", "words"),
    [
        (ONNX + 'input { name: "z" data_type: TYPE_FP32 dims: [ 16 ] }', "input.name", "it has x"),
        (ONNX + 'input { name: "x" data_type: TYPE_INT64 dims: [ 16 ] }', "input.data_type", "FP32"),
        (ONNX + 'input { name: "x" data_type: TYPE_FP32 dims: [ 17 ] }', "input.dims", "[-1, 16]"),
        (ONNX + "sequence_batching { }", "sequence_batching", "state"),
        (ONNX + 'name: "other"', "name", "folder"),
        (ONNX + "version_policy { specific { versions: [ 9 ] } }", "version_policy", "--all-versions"),
        ("max_batch_size: 100000", "1/", "batching.max_batch_size"),
    ],
)
def test_a_config_that_does_not_fit_its_model_is_refused(tmp_path: Path, config: str, setting: str, words: str) -> None:
    add_model(tmp_path, "m", config=config)
    (row,) = imported(tmp_path, code=2)
    (found,) = row["findings"]
    assert found["setting"] == setting
    assert words in found["reason"]


@pytest.mark.parametrize(
    ("make", "config", "batching", "outcome"),
    [
        # Two names for the first axis: Triton batches, Headrace cannot know that they are one size.
        (models.two_axes, ONNX, 0, "changed"),
        # Dims that are whole shapes: no batch axis, though the graph has one.
        (models.add_one, 'input { name: "x" data_type: TYPE_FP32 dims: [ 2, 16 ] }', 0, None),
        (models.fixed_batch, ONNX, None, "refused"),
    ],
)
def test_batch_axes(tmp_path: Path, make: Any, config: str, batching: int | None, outcome: str | None) -> None:
    add_model(tmp_path / "repository", "m", config=config, make=make)
    rows = imported(tmp_path / "repository", "--out", str(tmp_path / "out"), code=2 if batching is None else 0)
    assert findings(rows).get("max_batch_size", (None,))[0] == outcome
    if batching is not None:
        assert read_package(tmp_path / "out" / "m" / "1").spec.batching.max_batch_size == batching


def test_sizes_that_the_config_knows_and_the_graph_leaves_open_are_kept(tmp_path: Path) -> None:
    sizes = (
        'input { name: "x" data_type: TYPE_FP32 dims: [ 5 ] } output { name: "y" data_type: TYPE_FP32 dims: [ -1 ] }'
    )
    warm = 'model_warmup { name: "w" batch_size: 2 inputs { key: "x" value { dims: [ 5 ] zero_data: true } } count: 3 }'
    add_model(tmp_path / "repository", "m", config=ONNX + sizes + warm, make=models.free_axes)
    rows = imported(tmp_path / "repository", "--out", str(tmp_path / "out"))
    spec = read_package(tmp_path / "out" / "m" / "1").spec
    assert list(spec.inputs[0].shape) == [-1, 5]
    assert list(spec.warmup.shapes["x"].dims) == [5]
    assert findings(rows)["model_warmup"] == ("changed", "it runs once, not 3 times")


def test_reshape_and_outputs_that_are_left_out_are_told(tmp_path: Path) -> None:
    names = "".join(
        f'input {{ name: "{name}" data_type: TYPE_FP32 dims: [ 2, 2 ] reshape {{ shape: [ 4 ] }} }} ' for name in "ab"
    )
    add_model(tmp_path, "m", config=ONNX + names + 'output { name: "total" dims: [ 4 ] }', make=models.two_inputs)
    told = findings(imported(tmp_path))
    assert "[4] for one item, not [2, 2]" in told["input.reshape"][1]
    assert "share: served, too" in told["output"][1]


def test_weights_beside_the_graph_come_along_and_links_are_followed(tmp_path: Path) -> None:
    folder = add_model(tmp_path / "repository", "m", make=models.weights_beside)
    moved = (folder / "1" / "weights.bin").rename(tmp_path / "elsewhere.bin")
    (folder / "1" / "weights.bin").symlink_to(moved)
    imported(tmp_path / "repository", "--out", str(tmp_path / "out"))
    package = read_package(tmp_path / "out" / "m" / "1")
    assert set(package.files) == {"model.onnx", "weights.bin"}


def test_folders_that_are_there_are_not_replaced(tmp_path: Path) -> None:
    folder = add_model(tmp_path, "m", config=ONNX)
    (row,) = imported(tmp_path, "--out", str(tmp_path), code=2)
    assert "is there already" in row["findings"][0]["reason"]
    assert (folder / "1" / "model.onnx").exists()


def test_ensembles_follow_the_models_of_their_steps_or_are_refused_with_them(tmp_path: Path) -> None:
    add_ensemble(tmp_path / "repository", "chain", "good", "other")
    add_ensemble(tmp_path / "repository", "broken", "good", "plan")
    add_model(tmp_path / "repository", "good", config=ONNX)
    add_model(tmp_path / "repository", "plan", file="model.plan")
    rows = imported(tmp_path / "repository", "--out", str(tmp_path / "out"), code=2)
    states = [(row["model"], row["state"]) for row in rows]
    assert states == [("good", "written"), ("plan", "refused"), ("broken", "refused"), ("chain", "written")]
    assert "'plan' is not imported" in rows[2]["findings"][0]["reason"]
    spec = read_package(tmp_path / "out" / "chain" / "1").spec
    assert [(step.model, step.version) for step in spec.ensemble.steps] == [("good", "1"), ("other", "latest")]
    assert (spec.batching.max_batch_size, list(spec.inputs[0].shape)) == (8, [-1, 16])


def test_a_folder_that_is_no_repository_is_bad_input(tmp_path: Path) -> None:
    folder = add_model(tmp_path, "m", config=ONNX)
    for path, words in ((tmp_path / "nowhere", "no such folder"), (folder, str(tmp_path))):
        result = CliRunner().invoke(app, ["import-triton", str(path)], env={"COLUMNS": "400"})
        assert result.exit_code == 2
        assert words in result.stderr


def test_a_torch_export_archive_is_imported_and_torchscript_is_not(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    names = "".join(f'input {{ name: "INPUT__{index}" data_type: TYPE_FP32 dims: [ 3 ] }} ' for index in range(2))
    config = 'platform: "pytorch_libtorch" max_batch_size: 40 ' + names
    add_model(tmp_path / "repository", "exported", config=config, make=models.exported_sum, file="model.pt")

    def script(path: Path) -> Path:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("model/data.pkl", b"")
            archive.writestr("model/code/__torch__.py", b"")
        return path

    add_model(tmp_path / "repository", "scripted", config=config, make=script, file="model.pt")
    rows = imported(tmp_path / "repository", "--out", str(tmp_path / "out"), code=2)
    assert [row["state"] for row in rows] == ["written", "refused"]
    assert "32 rows at most" in findings(rows[:1])["max_batch_size"][1]
    assert "callers use" in findings(rows[:1])["input.name"][1]
    assert "TorchScript" in rows[1]["findings"][0]["reason"]
    assert read_package(tmp_path / "out" / "exported" / "1").spec.runtime == "torch"
