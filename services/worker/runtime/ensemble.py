"""Ensembles: the models of a pipeline run one after the other, on the tensors that they hand on in memory."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from services.common.errors import InvalidArgument, ModelFailed
from services.common.telemetry.batches import StageRun
from services.common.tensors import Array
from services.worker.runtime.port import LoadedModel


@dataclass(frozen=True, slots=True)
class Step:
    """One model of the pipeline, loaded.

    Attributes:
        inputs, outputs: the model's name → the pipeline's tensor.
    """

    name: str
    version: int
    model: LoadedModel
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


class EnsembleModel:
    """Implements LoadedModel.

    Args:
        steps: in an order in which they can run.
        outputs: tensors that are given back.
    """

    def __init__(self, steps: Sequence[Step], outputs: Sequence[str]) -> None:
        self._steps = steps
        self._outputs = outputs
        last = {tensor: place for place, step in enumerate(steps) for tensor in step.inputs.values()}
        # Which tensors nobody needs behind a step: their memory is free for the next.
        self._spent = [
            [tensor for tensor, used in last.items() if used == place and tensor not in outputs]
            for place in range(len(steps))
        ]

    @property
    def device(self) -> str:
        """Where the first of its models runs that does not run on the CPU."""
        return next((step.model.device for step in self._steps if step.model.device != "cpu"), "cpu")

    def run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        """One run of every step. Raises InvalidArgument, ModelFailed; the message names the step."""
        return self.run_staged(inputs)[0]

    def run_staged(self, inputs: dict[str, Array]) -> tuple[dict[str, Array], list[StageRun]]:
        """As `run`, and how long each step took."""
        tensors, stages = dict(inputs), list[StageRun]()
        for step, spent in zip(self._steps, self._spent, strict=True):
            start_ns, began = time.time_ns(), time.perf_counter_ns()
            made = _run(step, {name: tensors[tensor] for name, tensor in step.inputs.items()})
            stages.append(StageRun(step.name, step.version, start_ns, time.perf_counter_ns() - began))
            for name, tensor in step.outputs.items():
                if name not in made:
                    raise ModelFailed(f"step '{step.name}' gave no output '{name}'; it gave {', '.join(made)}")
                tensors[tensor] = _bytes(made[name])
            for tensor in spent:
                del tensors[tensor]
        return {name: tensors[name] for name in self._outputs}, stages


def _run(step: Step, inputs: dict[str, Array]) -> dict[str, Array]:
    try:
        return step.model.run(inputs)
    except InvalidArgument as error:
        raise InvalidArgument(f"step '{step.name}': {error}") from error
    except Exception as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ModelFailed(f"step '{step.name}' version {step.version}: {reason}") from error


def _bytes(array: Array) -> Array:
    """Some runtimes give strings as text; all take them as bytes."""
    if array.dtype != object:
        return array
    encoded = np.empty(array.shape, dtype=object)
    encoded.ravel()[:] = [each if isinstance(each, bytes) else str(each).encode() for each in array.ravel()]
    return encoded
