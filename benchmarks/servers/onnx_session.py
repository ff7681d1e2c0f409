"""The same model runner for every server: ONNX Runtime on one thread."""

from typing import Any

import onnxruntime as ort


class OneThread:
    """x in, y out."""

    def __init__(self, path: str) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(self, x: Any) -> Any:
        """One batch: float32 [N, width] → float32 [N, width]."""
        return self._session.run(["y"], {"x": x})[0]
