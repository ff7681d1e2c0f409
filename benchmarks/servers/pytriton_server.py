"""The models behind PyTriton: NVIDIA's Triton in front, this process runs the batches.

python pytriton_server.py GRPC_PORT HTTP_PORT NAME=FILE:WIDTH …
"""

import sys
from functools import partial
from typing import Any

import numpy as np
from onnx_session import OneThread
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

MAX_BATCH = 64


def main(grpc_port: int, http_port: int, models: list[str]) -> None:
    """Serves until told to stop."""
    config = TritonConfig(
        grpc_address="127.0.0.1",
        grpc_port=grpc_port,
        http_address="127.0.0.1",
        http_port=http_port,
        allow_metrics=False,
    )
    with Triton(config=config) as triton:
        for model in models:
            name, _, rest = model.partition("=")
            path, _, width = rest.rpartition(":")
            session = OneThread(path)

            @batch  # type: ignore[untyped-decorator]  # PyTriton is not installed beside us
            def infer(x: Any, session: OneThread) -> dict[str, Any]:
                return {"y": session.run(x)}

            tensors = [Tensor(name=tensor, dtype=np.float32, shape=(int(width),)) for tensor in ("x", "y")]
            triton.bind(
                model_name=name,
                infer_func=partial(infer, session=session),
                inputs=tensors[:1],
                outputs=tensors[1:],
                config=ModelConfig(max_batch_size=MAX_BATCH, batcher=DynamicBatcher()),
            )
        triton.serve()


main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
