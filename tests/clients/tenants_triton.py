"""NVIDIA's client with a tenant's key, run by tests/e2e/test_tenants.py: `tenants_triton.py HOST:PORT KEY`."""

import sys

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException


def main(address: str, key: str) -> None:
    """Let in with the key, refused without."""
    client, headers = triton.InferenceServerClient(address), {"authorization": f"Bearer {key}"}
    assert client.is_server_ready()
    assert client.get_model_metadata("add_one", headers=headers).name == "add_one"
    tensor = triton.InferInput("x", [1, 16], "FP32")
    tensor.set_data_from_numpy(np.zeros((1, 16), np.float32))
    answer = client.infer("add_one", [tensor], headers=headers)
    assert answer.as_numpy("y")[0, 0] == 1
    for wrong, status in (({}, "UNAUTHENTICATED"), ({"x-api-key": key}, "PERMISSION_DENIED")):
        try:
            client.infer("secret", [tensor], headers=wrong)
        except InferenceServerException as error:
            assert status in str(error.status()), error
        else:
            raise AssertionError(f"{wrong} was let in")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
