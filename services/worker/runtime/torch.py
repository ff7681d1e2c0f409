"""torch.export archives: CUDA where it is, CPU otherwise. No pickle is loaded."""

from pathlib import Path

import torch

from headrace.v1.model_pb2 import ModelSpec
from services.common.errors import FailedPrecondition
from services.common.tensors import Array


class TorchModel:
    """Implements LoadedModel; inputs go in the order of the spec, outputs come in its order."""

    def __init__(self, path: Path, spec: ModelSpec, threads: int) -> None:
        torch.set_num_threads(threads)
        self._device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
        try:
            program = torch.export.load(path)
        except Exception as error:
            raise FailedPrecondition(f"torch cannot load '{path.name}': {error}") from error
        self._module = program.module().to(self._device)
        self._inputs = [tensor.name for tensor in spec.inputs]
        self._outputs = [tensor.name for tensor in spec.outputs]

    @property
    def device(self) -> str:
        """Where the weights are."""
        return str(self._device)

    def run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        """One forward pass without gradients."""
        with torch.inference_mode():
            # Request bytes are read-only and torch has no such tensors: it gets its own copy.
            tensors = [torch.tensor(inputs[name], device=self._device) for name in self._inputs]
            result = self._module(*tensors)
        results = result if isinstance(result, tuple | list) else (result,)
        return {name: tensor.cpu().numpy() for name, tensor in zip(self._outputs, results, strict=True)}
