"""What is asked: a trivial model, whose cost is all serving, and an MLP, which pays for batches."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort

from headrace.inference.grpc_service_pb2 import ModelInferRequest, ModelInferResponse
from tests.support import models

TRIVIAL, MLP = "trivial", "mlp"
WIDTHS = {TRIVIAL: 16, MLP: 512}


@dataclass(frozen=True, slots=True)
class Workload:
    """One model and one request to it.

    Attributes:
        file: the ONNX file: x float32 [N, width] → y float32 [N, width].
        request: a serialised ModelInferRequest of one row, raw contents.
        expected: y of that row, by ONNX Runtime in this process.
    """

    name: str
    file: Path
    width: int
    request: bytes
    expected: "np.ndarray[tuple[int, ...], np.dtype[np.float32]]"

    def check(self, answer: bytes) -> None:
        """Raises AssertionError where a serialised ModelInferResponse is not the right answer."""
        response = ModelInferResponse.FromString(answer)
        assert [output.name for output in response.outputs] == ["y"], response
        y = np.frombuffer(response.raw_output_contents[0], np.float32).reshape(1, self.width)
        np.testing.assert_allclose(y, self.expected, rtol=1e-3, atol=1e-5)


def make(name: str, folder: Path) -> Workload:
    """Writes the model's file and prepares its request."""
    file, width = folder / f"{name}.onnx", WIDTHS[name]
    models.add_one(file, width) if name == TRIVIAL else models.mlp(file, (width, 2048, 2048, width))
    x = np.random.default_rng(1).standard_normal((1, width)).astype(np.float32)
    request = ModelInferRequest(model_name=name, raw_input_contents=[x.tobytes()])
    request.inputs.add(name="x", datatype="FP32", shape=x.shape)
    (y,) = ort.InferenceSession(str(file)).run(["y"], {"x": x})
    return Workload(name, file, width, request.SerializeToString(), y)
