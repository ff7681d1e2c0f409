"""ONNX models on ONNX Runtime: CUDA where it is, CPU otherwise."""

from pathlib import Path

import numpy as np
import onnxruntime as ort

from services.common.errors import FailedPrecondition
from services.common.tensors import Array


class OnnxModel:
    """Implements LoadedModel.

    Args:
        threads: intra-op threads; batches, not threads, are where the throughput of small models is.
    """

    def __init__(self, path: Path, threads: int) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        available = ort.get_available_providers()
        wanted = ["CUDAExecutionProvider", "CPUExecutionProvider"]
        try:
            self._session = ort.InferenceSession(
                str(path), options, providers=[name for name in wanted if name in available]
            )
        except Exception as error:  # onnxruntime's errors share no base class
            raise FailedPrecondition(f"ONNX Runtime cannot load '{path.name}': {error}") from error
        self._outputs = [output.name for output in self._session.get_outputs()]
        self._strings = {tensor.name for tensor in self._session.get_inputs() if tensor.type == "tensor(string)"}

    @property
    def device(self) -> str:
        """As the session chose."""
        return "cuda:0" if "CUDAExecutionProvider" in self._session.get_providers() else "cpu"

    def run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        """One run of the session."""
        for name in self._strings & inputs.keys():
            inputs[name] = _text(inputs[name])
        return dict(zip(self._outputs, self._session.run(self._outputs, inputs), strict=True))


def _text(array: Array) -> Array:
    """ONNX strings are text: bytes that are not UTF-8 are refused by decoding."""
    text = np.empty(array.shape, dtype=object)
    text.ravel()[:] = [element.decode() if isinstance(element, bytes) else str(element) for element in array.ravel()]
    return text
