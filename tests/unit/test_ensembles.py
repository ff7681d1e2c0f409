"""Ensembles as the registry completes and guards them, and as the worker runs them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.packages import PackageError, read_package
from headrace.v1.model_pb2 import EnsembleSpec, EnsembleStep, Model, ModelSpec, ModelVersion, TensorSpec
from services.common.ensembles import check_fit, found_in, ordered, version_named
from services.common.errors import FailedPrecondition, HeadraceError, InvalidArgument, ModelFailed, NotFound
from services.common.tensors import Array
from services.registry.ensembles import (
    ANY_BATCH_SIZE,
    check_idle,
    check_members_loaded,
    check_move,
    check_unused,
    completed,
)
from services.worker.runtime.ensemble import EnsembleModel, Step


def tensor(said: str) -> TensorSpec:
    """ "ids INT64 -1 16" """
    name, datatype, *shape = said.split()
    return TensorSpec(name=name, datatype=datatype, shape=[int(size) for size in shape])


def model(name: str, inputs: list[str], outputs: list[str], *, batch: int = 64, versions: int = 1) -> Model:
    spec = ModelSpec(runtime="onnx", inputs=map(tensor, inputs), outputs=map(tensor, outputs))
    spec.batching.max_batch_size = batch
    return Model(
        name=name, versions=[ModelVersion(name=name, version=number + 1, spec=spec) for number in range(versions)]
    )


def catalogue() -> dict[str, Model]:
    models = [
        model("tokenise", ["text BYTES -1"], ["ids INT64 -1 -1", "mask INT64 -1 -1"]),
        model("embed", ["ids INT64 -1 -1", "mask INT64 -1 -1"], ["vector FP32 -1 32"], batch=16, versions=2),
        model("classify", ["x FP32 -1 32"], ["label INT64 -1", "scores FP32 -1 3"]),
        model("wide", ["x FP32 -1 64"], ["label INT64 -1"]),
        model("single", ["x FP32 1 32"], ["y FP32 1 32"], batch=0),
    ]
    models[1].aliases["good"] = 1
    models.append(
        Model(name="writer", versions=[ModelVersion(name="writer", version=1, spec=ModelSpec(runtime="llm"))])
    )
    models[-1].versions[0].spec.text.chat = True
    return {each.name: each for each in models}


def step(name: str, version: str = "", inputs: dict[str, str] | None = None, **outputs: str) -> EnsembleStep:
    return EnsembleStep(model=name, version=version, input_map=inputs or {}, output_map=outputs)


PIPELINE = [step("tokenise"), step("embed"), step("classify", inputs={"x": "vector"})]


def ensemble(steps: list[EnsembleStep], *, batch: int = ANY_BATCH_SIZE, **said: list[TensorSpec]) -> ModelSpec:
    spec = ModelSpec(runtime="ensemble", ensemble=EnsembleSpec(steps=steps), **said)  # type: ignore[arg-type]
    spec.batching.max_batch_size = batch
    return spec


def test_signature_maps_versions_and_batch_size_follow_from_the_members() -> None:
    whole = completed("pipeline", ensemble([*reversed(PIPELINE)]), catalogue())
    assert [item.model for item in whole.ensemble.steps] == ["tokenise", "embed", "classify"]
    assert [item.version for item in whole.ensemble.steps] == ["1", "2", "1"]
    assert dict(whole.ensemble.steps[1].input_map) == {"ids": "ids", "mask": "mask"}
    assert list(whole.inputs) == [tensor("text BYTES -1")]
    assert list(whole.outputs) == [tensor("label INT64 -1"), tensor("scores FP32 -1 3")]
    assert whole.batching.max_batch_size == 16


def test_declared_outputs_may_be_what_steps_hand_on() -> None:
    said = [TensorSpec(name="label"), TensorSpec(name="vector", shape=[-1, 32])]
    whole = completed("pipeline", ensemble(PIPELINE, outputs=said, batch=8), catalogue())
    assert list(whole.outputs) == [tensor("label INT64 -1"), tensor("vector FP32 -1 32")]
    assert whole.batching.max_batch_size == 8


def test_one_member_without_a_batch_axis_leaves_the_ensemble_without() -> None:
    steps = [step("single", y="z"), step("classify", inputs={"x": "z"})]
    whole = completed("e", ensemble(steps), catalogue())
    assert whole.batching.max_batch_size == 0
    assert list(whole.inputs) == [tensor("x FP32 1 32")]


@pytest.mark.parametrize(
    ("spec", "kind", "message"),
    [
        (ensemble([]), InvalidArgument, "needs steps"),
        (ensemble([step("pipeline")]), InvalidArgument, r"step 1 \('pipeline'\): names the ensemble itself"),
        (ensemble([step("nope")]), NotFound, r"step 1 .* no model 'nope'"),
        (ensemble([step("embed", "7")]), NotFound, r"no version or alias '7'; there are: 1, 2, good"),
        (ensemble([step("writer")]), InvalidArgument, "is a language model"),
        (ensemble([step("classify", inputs={"y": "text"})]), InvalidArgument, "lacks x, which the model needs"),
        (ensemble([step("classify", inputs={"x": "v", "y": "w"})]), InvalidArgument, "has no input 'y'; it takes x"),
        (ensemble([step("classify", probability="p")]), InvalidArgument, "has no output 'probability'; it gives label"),
        (
            ensemble([*PIPELINE, step("wide", inputs={"x": "vector"}, label="other")]),
            InvalidArgument,
            "step 4 .*'vector' is FP32.*takes FP32.*64",
        ),
        (
            ensemble([step("tokenise", ids="v", mask="m"), step("classify", inputs={"x": "v"})]),
            InvalidArgument,
            "'v' is INT64",
        ),
        (ensemble([step("classify"), step("classify")]), InvalidArgument, "'label' is made already"),
        (
            ensemble([step("single", inputs={"x": "b"}, y="a"), step("single", inputs={"x": "a"}, y="b")]),
            InvalidArgument,
            "wait for each other",
        ),
        (ensemble(PIPELINE, inputs=[TensorSpec(name="words")]), InvalidArgument, "that nobody makes: text"),
        (
            ensemble(PIPELINE, inputs=[TensorSpec(name="text"), TensorSpec(name="a")]),
            InvalidArgument,
            "no step takes: a",
        ),
        (ensemble(PIPELINE, outputs=[TensorSpec(name="class")]), InvalidArgument, "outputs that nobody makes: class"),
        (
            ensemble(PIPELINE, outputs=[TensorSpec(name="scores", shape=[-1, 4])]),
            InvalidArgument,
            "'scores' is declared",
        ),
        (ensemble(PIPELINE, batch=32), InvalidArgument, "is 32, but 'embed' takes batches of 16"),
    ],
)
def test_what_is_no_pipeline_is_refused(spec: ModelSpec, kind: type[HeadraceError], message: str) -> None:
    with pytest.raises(kind, match=message):
        completed("pipeline", spec, catalogue())


def test_ensembles_of_ensembles_and_unloaded_members_are_refused() -> None:
    models = published()
    with pytest.raises(InvalidArgument, match="is an ensemble, too"):
        completed("outer", ensemble([step("pipeline")]), models)
    models["embed"].unloaded = True
    with pytest.raises(FailedPrecondition, match="unloaded; bring it back with: headrace load embed"):
        completed("other", ensemble(PIPELINE), models)


def published(*steps: EnsembleStep) -> dict[str, Model]:
    """The catalogue with an ensemble."""
    models = catalogue()
    spec = completed("pipeline", ensemble(list(steps) or PIPELINE), models)
    models["pipeline"] = Model(name="pipeline", versions=[ModelVersion(name="pipeline", version=1, spec=spec)])
    return models


def test_what_an_ensemble_needs_is_not_deleted() -> None:
    models = published(step("tokenise"), step("embed", "good"), step("classify", inputs={"x": "vector"}))
    refused: list[Callable[[], None]] = [
        lambda: check_unused(models, "embed", 1),
        lambda: check_unused(models, "embed"),
        lambda: check_unused(models, "embed", alias="good"),
        lambda: check_idle(models, "embed"),
    ]
    for check in refused:
        with pytest.raises(FailedPrecondition, match="ensemble 'pipeline'"):
            check()
    check_unused(models, "embed", 2)
    check_unused(models, "wide")
    check_unused(models, "pipeline", 1)
    models["pipeline"].unloaded = True
    check_idle(models, "embed")
    models["embed"].unloaded = True
    with pytest.raises(FailedPrecondition, match="headrace load embed"):
        check_members_loaded(models, "pipeline")


def pointing(known: Model, **aliases: int) -> Model:
    """The model with further aliases."""
    moved = Model()
    moved.CopyFrom(known)
    moved.aliases.update(aliases)
    return moved


def test_an_alias_that_is_followed_moves_only_where_it_fits() -> None:
    models = published(step("tokenise"), step("embed", "good"), step("classify", inputs={"x": "vector"}))
    check_move(models, pointing(models["embed"], good=2))
    models["embed"].versions[1].spec.outputs[0].shape[1] = 48
    refused = r"'pipeline' version 1 follows 'good' of 'embed', and version 2 does not fit: .*'vector'"
    with pytest.raises(FailedPrecondition, match=refused):
        check_move(models, pointing(models["embed"], good=2))
    check_move(models, pointing(models["embed"], another=2))
    models["embed"].aliases["good"] = 2
    with pytest.raises(InvalidArgument, match="'vector'"):
        check_fit(models["pipeline"].versions[0].spec, lambda item: found_in(models, item))


def test_a_version_is_named_as_callers_name_it() -> None:
    known = model("m", [], ["y FP32 -1"], versions=3)
    known.aliases["good"] = 2
    assert [version_named(known, said).version for said in ("", "latest", "1", "good")] == [3, 3, 1, 2]
    known.rollout.stable = 1
    assert [version_named(known, said).version for said in ("", "latest")] == [1, 3]


@given(st.permutations(range(8)), st.data())
def test_any_pipeline_without_a_cycle_is_put_in_order(places: list[int], data: st.DataObject) -> None:
    """Each step takes tensors of steps with a lower number, and they stand in the file in any order."""
    takes = {number: data.draw(st.sets(st.integers(0, number - 1))) if number else set[int]() for number in places}
    steps = [
        step(f"m{number}", inputs={f"i{other}": f"t{other}" for other in takes[number]}, o=f"t{number}")
        for number in places
    ]
    made: set[str] = set()
    for each in ordered(steps):
        assert set(each.input_map.values()) <= made
        made |= set(each.output_map.values())
    assert len(made) == len(steps)


class Function:
    """A model that is a function."""

    device = "cpu"

    def __init__(self, function: Any) -> None:
        self._function = function

    def run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        return {"y": self._function(**inputs)}


def running(first: Any, second: Any, outputs: list[str]) -> EnsembleModel:
    one = Step("first", 1, Function(first), {"x": "in"}, {"y": "between"})
    other = Step("second", 2, Function(second), {"x": "between"}, {"y": "out"})
    return EnsembleModel([one, other], outputs)


def test_steps_run_in_order_and_hand_their_tensors_on() -> None:
    pipeline = running(lambda x: x + 1, lambda x: x * 10, ["out", "between"])
    outputs, stages = pipeline.run_staged({"in": np.array([1.0, 2.0])})
    assert outputs["out"].tolist() == [20, 30]
    assert outputs["between"].tolist() == [2, 3]
    assert [(stage.model, stage.version) for stage in stages] == [("first", 1), ("second", 2)]


def test_text_is_handed_on_as_bytes() -> None:
    seen: list[Any] = []
    pipeline = running(lambda x: np.array(["größe"], object), lambda x: seen.append(x[0]) or x, ["out"])  # type: ignore[func-returns-value]
    pipeline.run({"in": np.array([b""], object)})
    assert seen == ["größe".encode()]


def test_a_step_that_fails_is_named() -> None:
    def fails(x: Array) -> Array:
        raise ValueError("no such row\nand more")

    def refuses(x: Array) -> Array:
        raise InvalidArgument("too long")

    with pytest.raises(ModelFailed, match=r"^step 'second' version 2: no such row$"):
        running(lambda x: x, fails, ["out"]).run({"in": np.zeros(1)})
    with pytest.raises(InvalidArgument, match=r"^step 'first': too long$"):
        running(refuses, fails, ["out"]).run({"in": np.zeros(1)})


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ("runtime: ensemble\n", "steps: missing"),
        (
            "runtime: ensemble\nsteps:\n- model: a\n  inputmap: {}\n",
            r"line 4, steps\.0\.inputmap: unknown key; known are model, version, input_map, output_map",
        ),
        ("runtime: ensemble\nsteps:\n- version: 3\n", r"steps\.0\.model: this key is missing"),
        ("runtime: ensemble\nsteps:\n- model: a\nwarmup: {disabled: true}\n", "line 4, warmup"),
        ("runtime: identity\nsteps:\n- model: a\n", "line 2, steps: .*runtime: ensemble"),
    ],
)
def test_manifests_that_are_no_ensemble_are_refused_by_their_line(tmp_path: Path, manifest: str, message: str) -> None:
    (tmp_path / "model.yaml").write_text(manifest)
    with pytest.raises(PackageError, match=message):
        read_package(tmp_path)


def test_a_version_is_a_number_or_an_alias(tmp_path: Path) -> None:
    (tmp_path / "model.yaml").write_text(
        "runtime: ensemble\nsteps:\n- {model: a, version: 3}\n- {model: b, version: good}\noutputs: {label: {}}\n"
    )
    package = read_package(tmp_path)
    assert [item.version for item in package.spec.ensemble.steps] == ["3", "good"]
    assert [item.name for item in package.spec.outputs] == ["label"]
    assert list(package.files) == ["model.yaml"]
