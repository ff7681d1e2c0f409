"""From what was found to a model of tensors in memory: warm, and of an ensemble all of its models."""

from services.single.finding import Found
from services.worker.loading import warm_up
from services.worker.runtime import load_model
from services.worker.runtime.ensemble import EnsembleModel, Step
from services.worker.runtime.port import LoadedModel


def load(found: Found, threads: int) -> LoadedModel:
    """The model, ready to run. Blocks.

    Raises:
        HeadraceError: it does not load, or one of an ensemble's does not; the message says why.
    """
    if not found.members:
        return _warm(found, threads)
    # Two steps may name the same version, which is in memory once.
    loaded: dict[tuple[str, int], LoadedModel] = {}
    steps = []
    for step, member in zip(found.version.spec.ensemble.steps, found.members, strict=True):
        name, version = member.version.name, member.version.version
        if (name, version) not in loaded:
            loaded[name, version] = _warm(member, threads)
        steps.append(Step(name, version, loaded[name, version], dict(step.input_map), dict(step.output_map)))
    return EnsembleModel(steps, [tensor.name for tensor in found.version.spec.outputs])


def _warm(found: Found, threads: int) -> LoadedModel:
    model = load_model(found.folder, found.version.spec, threads)
    warm_up(model, found.version.spec)
    return model
