"""What a caller of Triton had before a migration, run by tests/e2e/test_triton_import.py: `… HOST:PORT MODEL VERSION`.

Prints the answer as JSON.
"""

import json
import sys
from collections.abc import Callable

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
        if levels := config.dynamic_batching.priority_levels:
            for level in range(levels + 1):
                client.infer(model, [given], model_version=version, priority=level, client_timeout=60)
            refused(lambda: client.infer(model, [given], priority=levels + 1, client_timeout=60))
    print(
        json.dumps(
            {"y": answer.as_numpy("y").tolist(), "max_batch_size": config.max_batch_size, "priority_levels": levels}
        )
    )


def refused(ask: Callable[[], object]) -> None:
    """A level that there is not is an error, and it says what there is."""
    try:
        ask()
    except triton.InferenceServerException as error:
        assert "has levels 1, the highest, to" in str(error), error
    else:
        raise AssertionError("it was let in")


if __name__ == "__main__":
    main(*sys.argv[1:])
