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
        self._inputs = [(tensor.name, tensor.datatype == "BF16") for tensor in spec.inputs]
        self._outputs = [tensor.name for tensor in spec.outputs]

    @property
    def device(self) -> str:
        """Where the weights are."""
        return str(self._device)

    def run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        """One forward pass without gradients."""
        with torch.inference_mode():
            # Request bytes are read-only and torch has no such tensors: it gets its own copy.
            tensors = [_tensor(inputs[name], self._device, bits) for name, bits in self._inputs]
            result = self._module(*tensors)
        results = result if isinstance(result, tuple | list) else (result,)
        return {name: _array(tensor) for name, tensor in zip(self._outputs, results, strict=True)}


def _tensor(array: Array, device: torch.device, bits: bool) -> torch.Tensor:
    tensor = torch.tensor(array, device=device)
    return tensor.view(torch.bfloat16) if bits else tensor


def _array(tensor: torch.Tensor) -> Array:
    """On the host; numpy has no bfloat16, so its bits travel as uint16."""
    host = tensor.cpu().contiguous()
    array: Array = (host.view(torch.uint16) if host.dtype == torch.bfloat16 else host).numpy()
    return array
