"""What the registry makes sure of for ensembles: they are whole when they are published, and stay so. Pure."""

from collections.abc import Iterator, Mapping

from headrace.v1.model_pb2 import EnsembleStep, Model, ModelSpec, ModelVersion
from services.common.ensembles import Wiring, check_fit, found_in, narrowed, ordered
from services.common.errors import FailedPrecondition, HeadraceError, InvalidArgument, NotFound

# What a push sends whose manifest does not say max_batch_size: as large as the members allow.
ANY_BATCH_SIZE = 65_536


def completed(name: str, spec: ModelSpec, models: Mapping[str, Model]) -> ModelSpec:
    """The spec with all that follows from its members: maps that were left out, the order, signature, batch size.

    Raises:
        InvalidArgument: it cannot be a pipeline; the message names the step.
        NotFound: a step names what is not there.
        FailedPrecondition: a step's model is unloaded.
    """
    if not spec.ensemble.steps:
        raise InvalidArgument("an ensemble needs steps; there are none")
    whole = ModelSpec()
    whole.CopyFrom(spec)
    for place, step in enumerate(whole.ensemble.steps):
        try:
            _complete_step(name, step, models)
        except HeadraceError as error:
            raise type(error)(f"step {place + 1} ('{step.model}'): {error}") from error
    steps = ordered(whole.ensemble.steps)
    wiring = Wiring.of(steps, lambda step: found_in(models, step))
    del whole.ensemble.steps[:], whole.inputs[:], whole.outputs[:]
    whole.ensemble.steps.extend(steps)
    whole.inputs.extend(wiring.inputs.values())
    whole.outputs.extend(tensor for tensor in wiring.made.values() if tensor.name not in wiring.consumed)
    _declare(spec, whole, wiring)
    _batch(whole, [found_in(models, step) for step in steps])
    return whole


def _complete_step(name: str, step: EnsembleStep, models: Mapping[str, Model]) -> None:
    if step.model == name:
        raise InvalidArgument("names the ensemble itself")
    member = found_in(models, step)
    if member.spec.HasField("ensemble"):
        raise InvalidArgument("is an ensemble, too; name its steps instead")
    if member.spec.HasField("text"):
        raise InvalidArgument("is a language model, which streams; expected a model of tensors")
    if models[step.model].unloaded:
        raise FailedPrecondition(f"is unloaded; bring it back with: headrace load {step.model}")
    # Who names no version gets the same one for good; who names an alias wants it to move.
    step.version = step.version or str(member.version)
    if not step.input_map:
        step.input_map.update({tensor.name: tensor.name for tensor in member.spec.inputs if not tensor.optional})
    if not step.input_map:
        raise InvalidArgument("has only optional inputs; say with input_map which of them it gets")
    if not step.output_map:
        step.output_map.update({tensor.name: tensor.name for tensor in member.spec.outputs})
    if "" in {*step.input_map.values(), *step.output_map.values()}:
        raise InvalidArgument("maps to a tensor without a name")


def _declare(said: ModelSpec, whole: ModelSpec, wiring: Wiring) -> None:
    """Puts declared inputs and outputs in place of those that follow from the steps."""
    if said.inputs:
        declared = {tensor.name for tensor in said.inputs}
        if unmade := sorted(wiring.inputs.keys() - declared):
            raise InvalidArgument(
                f"tensors that nobody makes: {', '.join(unmade)}; they are outputs of no step and not among the"
                f" declared inputs ({', '.join(sorted(declared))})"
            )
        if unused := sorted(declared - wiring.inputs.keys()):
            raise InvalidArgument(f"declared inputs that no step takes: {', '.join(unused)}")
        del whole.inputs[:]
        whole.inputs.extend(narrowed(tensor, wiring.inputs[tensor.name]) for tensor in said.inputs)
    if said.outputs:
        if unmade := sorted({tensor.name for tensor in said.outputs} - wiring.made.keys()):
            raise InvalidArgument(
                f"declared outputs that nobody makes: {', '.join(unmade)}; steps make {', '.join(wiring.made)}"
            )
        del whole.outputs[:]
        whole.outputs.extend(narrowed(tensor, wiring.made[tensor.name]) for tensor in said.outputs)


def _batch(whole: ModelSpec, members: list[ModelVersion]) -> None:
    sizes = {member.name: member.spec.batching.max_batch_size for member in members}
    smallest = min(sizes, key=lambda name: sizes[name])
    possible, asked = sizes[smallest], whole.batching.max_batch_size
    if possible < asked < ANY_BATCH_SIZE:
        raise InvalidArgument(
            f"batching.max_batch_size is {asked}, but '{smallest}' takes batches of {possible or 'no more than one'}"
        )
    whole.batching.max_batch_size = min(asked, possible)


def users(models: Mapping[str, Model], name: str) -> Iterator[tuple[ModelVersion, EnsembleStep]]:
    """Ensembles' versions with a step of this model, and the step."""
    for model in models.values():
        for version in model.versions:
            for step in version.spec.ensemble.steps:
                if step.model == name:
                    yield version, step


def check_unused(models: Mapping[str, Model], name: str, number: int | None = None, alias: str | None = None) -> None:
    """Raises FailedPrecondition where an ensemble needs the model, this version of it, or this alias."""
    for ensemble, step in users(models, name):
        if alias is not None:
            needed = step.version == alias
        elif number is not None:
            needed = _number(models, step) == number
        else:
            needed = True
        if needed:
            what = f"'{name}'" if number is None else f"version {number} of '{name}'"
            raise FailedPrecondition(
                f"{what if alias is None else f'alias {alias!r} of {what}'} is a step of ensemble '{ensemble.name}'"
                f" version {ensemble.version}; delete that first"
            )


def check_move(models: Mapping[str, Model], moved: Model) -> None:
    """Raises FailedPrecondition where an ensemble that follows the model would get a version that does not fit.

    Args:
        models: all, as they are.
        moved: one of them, as it is to be: with another alias, another latest version, another rollout.
    """
    after = {**models, moved.name: moved}
    for ensemble, step in users(models, moved.name):
        number = _number(after, step)
        if number in {None, _number(models, step)}:
            continue
        try:
            check_fit(ensemble.spec, lambda step: found_in(after, step))
        except HeadraceError as error:
            raise FailedPrecondition(
                f"ensemble '{ensemble.name}' version {ensemble.version} follows '{step.version}' of '{moved.name}', and"
                f" version {number} does not fit: {error}"
            ) from error


def check_idle(models: Mapping[str, Model], name: str) -> None:
    """Raises FailedPrecondition where an ensemble in service needs the model."""
    for ensemble, _ in users(models, name):
        if not models[ensemble.name].unloaded:
            raise FailedPrecondition(
                f"'{name}' is a step of ensemble '{ensemble.name}', which is in service; unload that first"
            )


def check_members_loaded(models: Mapping[str, Model], name: str) -> None:
    """Raises FailedPrecondition where an ensemble is to be served whose step's model is not."""
    steps = {step.model for version in models.get(name, Model()).versions for step in version.spec.ensemble.steps}
    if unloaded := sorted(step for step in steps if step in models and models[step].unloaded):
        raise FailedPrecondition(
            f"step '{unloaded[0]}' of ensemble '{name}' is unloaded; bring it back first: headrace load {unloaded[0]}"
        )


def _number(models: Mapping[str, Model], step: EnsembleStep) -> int | None:
    """The version that a step names; None: there is none."""
    try:
        return found_in(models, step).version
    except NotFound:
        return None
