"""Ensembles: which versions their steps name, in which order they run, and whether their tensors fit. Pure.

The semantics are those of Triton's ensemble_scheduling: steps are joined by the names of tensors, whatever their order
in the file; each tensor is made once, by one step or by the request.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from headrace.v1.model_pb2 import EnsembleStep, Model, ModelSpec, ModelVersion, TensorSpec
from services.common.errors import InvalidArgument, NotFound

# The version that a step names.
Find = Callable[[EnsembleStep], ModelVersion]


def version_named(model: Model, said: str) -> ModelVersion:
    """A number, an alias, "latest", or "" for what callers get who name none: a rollout's stable version, else the
    latest.

    Raises:
        NotFound: the message names what there is.
    """
    by_number = {version.version: version for version in model.versions}
    number: int | None = None
    if said in model.aliases:
        number = model.aliases[said]
    elif not said and model.HasField("rollout"):
        number = model.rollout.stable
    elif said in {"", "latest"}:
        number = max(by_number, default=None)
    elif said.isascii() and said.isdigit():
        number = int(said)
    if number is None or number not in by_number:
        known = ", ".join([*map(str, sorted(by_number)), *sorted(model.aliases)]) or "none"
        raise NotFound(f"model '{model.name}' has no version or alias '{said}'; there are: {known}")
    return by_number[number]


def found_in(models: Mapping[str, Model], step: EnsembleStep) -> ModelVersion:
    """The version that a step names. Raises NotFound."""
    model = models.get(step.model)
    if model is None:
        raise NotFound(f"no model '{step.model}'; push it first")
    return version_named(model, step.version)


@dataclass(slots=True)
class Wiring:
    """The tensors of an ensemble.

    Attributes:
        inputs: what requests bring.
        made: what steps make.
        consumed: what steps take.
    """

    inputs: dict[str, TensorSpec] = field(default_factory=dict)
    made: dict[str, TensorSpec] = field(default_factory=dict)
    consumed: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, steps: Iterable[EnsembleStep], find: Find) -> "Wiring":
        """Joins the steps, which stand in an order in which they can run.

        Raises:
            NotFound: a step's version does not exist.
            InvalidArgument: its model has no such input or output, or a tensor does not fit those who take it.
        """
        wiring = cls()
        for place, step in enumerate(steps):
            wiring._take(place, step, find(step).spec)
            wiring._make(place, step, find(step).spec)
        return wiring

    def _take(self, place: int, step: EnsembleStep, spec: ModelSpec) -> None:
        inputs = {tensor.name: tensor for tensor in spec.inputs}
        needed = {tensor.name for tensor in spec.inputs if not tensor.optional}
        if missing := sorted(needed - step.input_map.keys()):
            raise _at(place, step, f"input_map lacks {', '.join(missing)}, which the model needs")
        if unknown := sorted(step.input_map.keys() - inputs.keys()):
            raise _at(place, step, f"the model has no input '{unknown[0]}'; it takes {', '.join(inputs) or 'nothing'}")
        for name, wanted in inputs.items():  # protobuf's maps have no order
            if name not in step.input_map:
                continue
            tensor = step.input_map[name]
            self.consumed.add(tensor)
            there = self.made.get(tensor) or self.inputs.get(tensor)
            if there is None:
                self.inputs[tensor] = TensorSpec(name=tensor, datatype=wanted.datatype, shape=wanted.shape)
            elif there.datatype != wanted.datatype or (shape := _meet(there.shape, wanted.shape)) is None:
                raise _at(
                    place,
                    step,
                    f"tensor '{tensor}' is {_said(there)}; input '{name}' of the model takes {_said(wanted)}",
                )
            elif tensor in self.inputs:
                there.shape[:] = shape

    def _make(self, place: int, step: EnsembleStep, spec: ModelSpec) -> None:
        outputs = {tensor.name: tensor for tensor in spec.outputs}
        if unknown := sorted(step.output_map.keys() - outputs.keys()):
            raise _at(place, step, f"the model has no output '{unknown[0]}'; it gives {', '.join(outputs)}")
        for name, given in outputs.items():
            if name not in step.output_map:
                continue
            tensor = step.output_map[name]
            if tensor in self.made or tensor in self.inputs:
                raise _at(place, step, f"tensor '{tensor}' is made already; each is made once")
            self.made[tensor] = TensorSpec(name=tensor, datatype=given.datatype, shape=given.shape)


def ordered(steps: Sequence[EnsembleStep]) -> list[EnsembleStep]:
    """The steps in an order in which they can run: each behind those that make what it takes, else as they stood.

    Raises:
        InvalidArgument: some wait for each other.
    """
    waiting, done = list(enumerate(steps)), list[EnsembleStep]()
    while waiting:
        unmade = {tensor for _, step in waiting for tensor in step.output_map.values()}
        ready = next((item for item in waiting if unmade.isdisjoint(item[1].input_map.values())), None)
        if ready is None:
            stuck = ", ".join(f"{place + 1} ('{step.model}')" for place, step in waiting)
            raise InvalidArgument(f"steps {stuck} wait for each other's tensors: expected no cycle")
        waiting.remove(ready)
        done.append(ready[1])
    return done


def check_fit(spec: ModelSpec, find: Find) -> None:
    """Whether an ensemble that was published with other versions of its members can run with these.

    Raises:
        NotFound: a version does not exist.
        InvalidArgument: a tensor does not fit.
    """
    wiring = Wiring.of(spec.ensemble.steps, find)
    for kind, tensors, there in (("input", spec.inputs, wiring.inputs), ("output", spec.outputs, wiring.made)):
        for tensor in tensors:
            now = there[tensor.name]
            if now.datatype != tensor.datatype or _meet(now.shape, tensor.shape) is None:
                raise InvalidArgument(
                    f"{kind} '{tensor.name}' of the ensemble is {_said(tensor)}; its steps now make it {_said(now)}:"
                    " push the ensemble again"
                )
    for step in spec.ensemble.steps:
        most = find(step).spec.batching.max_batch_size
        if spec.batching.max_batch_size > most:
            raise InvalidArgument(
                f"the ensemble takes batches of {spec.batching.max_batch_size}, its step '{step.model}' of {most} now:"
                " push the ensemble again"
            )


def narrowed(said: TensorSpec, derived: TensorSpec) -> TensorSpec:
    """A declared input or output, with what was left out of it. Raises InvalidArgument where the two do not fit."""
    shape = _meet(said.shape, derived.shape) if said.shape else list(derived.shape)
    if shape is None or (said.datatype and said.datatype != derived.datatype):
        raise InvalidArgument(f"'{said.name}' is declared as {_said(said)}; the steps make it {_said(derived)}")
    return TensorSpec(name=said.name, datatype=derived.datatype, shape=shape)


def _meet(one: Sequence[int], other: Sequence[int]) -> list[int] | None:
    """The shape that fits both (-1 fits any size); None if there is none."""
    if len(one) != len(other) or any(a != b and -1 not in {a, b} for a, b in zip(one, other, strict=True)):
        return None
    return [max(a, b) for a, b in zip(one, other, strict=True)]


def _said(tensor: TensorSpec) -> str:
    return f"{tensor.datatype}{list(tensor.shape)}"


def _at(place: int, step: EnsembleStep, message: str) -> InvalidArgument:
    return InvalidArgument(f"step {place + 1} ('{step.model}'): {message}")
