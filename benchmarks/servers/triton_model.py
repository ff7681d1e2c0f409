"""The models as Triton's own Python backend serves them: copied into its model repository as NAME/1/model.py."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """Joins the requests that Triton's dynamic batcher hands over, runs once, splits."""

    def initialize(self, args: dict[str, str]) -> None:
        """Opens the session on the file that the configuration names."""
        parameters = json.loads(args["model_config"])["parameters"]
        path = Path(parameters["onnx"]["string_value"])
        sys.path.insert(0, parameters["servers"]["string_value"])
        from onnx_session import OneThread  # noqa: PLC0415  # its folder is known only now

        self._model = OneThread(str(path))

    def execute(self, requests: list[Any]) -> list[Any]:
        """One batch."""
        inputs = [pb_utils.get_input_tensor_by_name(request, "x").as_numpy() for request in requests]
        y = self._model.run(np.concatenate(inputs))
        responses, start = [], 0
        for x in inputs:
            part = pb_utils.Tensor("y", y[start : start + len(x)])
            responses.append(pb_utils.InferenceResponse(output_tensors=[part]))
            start += len(x)
        return responses
