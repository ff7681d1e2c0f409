"""No model: gives back what it gets, after a known time. See headrace.packages.identity."""

import time

from headrace.v1.model_pb2 import ModelSpec
from services.common.tensors import Array


class IdentityModel:
    """Implements LoadedModel."""

    device = "cpu"

    def __init__(self, spec: ModelSpec) -> None:
        self._batch_seconds = float(spec.parameters.get("batch_ms", "0")) / 1000
        self._row_seconds = float(spec.parameters.get("request_ms", "0")) / 1000

    def run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        """y = x, after the delay."""
        time.sleep(self._batch_seconds + self._row_seconds * len(inputs["x"]))
        return {"y": inputs["x"]}
