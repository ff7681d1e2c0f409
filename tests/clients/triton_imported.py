"""What a caller of Triton had before a migration, run by tests/e2e/test_triton_import.py: `… HOST:PORT MODEL VERSION`.

Prints the answer as JSON.
"""

import json
import sys

import numpy as np
import tritonclient.grpc as triton


def main(address: str, model: str, version: str) -> None:
    """One request as Triton's own examples make it."""
    values = np.arange(32, dtype=np.float32).reshape(2, 16)
    given = triton.InferInput("x", [2, 16], "FP32")
    given.set_data_from_numpy(values)
    with triton.InferenceServerClient(address) as client:
        answer = client.infer(
            model, [given], model_version=version, outputs=[triton.InferRequestedOutput("y")], client_timeout=60
        )
        config = client.get_model_config(model, version).config
    print(json.dumps({"y": answer.as_numpy("y").tolist(), "max_batch_size": config.max_batch_size}))


if __name__ == "__main__":
    main(*sys.argv[1:])
