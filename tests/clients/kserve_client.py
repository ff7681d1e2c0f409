"""KServe's client against a running stack, run by tests/e2e/test_clients.py: `python kserve_client.py HOST:PORT`."""

import asyncio
import sys
from typing import Any

import grpc
import numpy as np
from kserve import InferenceGRPCClient, InferInput, InferRequest


def request(model: str, name: str, values: Any, datatype: str, *, raw: bool) -> Any:
    """A request with raw or typed contents."""
    made = InferInput(name, list(values.shape), datatype)
    made.set_data_from_numpy(values, binary_data=raw)
    return InferRequest(model_name=model, infer_inputs=[made])


async def main(address: str) -> None:
    """Health, inference with raw and typed contents, an error."""
    client = InferenceGRPCClient(url=address)
    assert await client.is_server_live()
    assert await client.is_server_ready()
    assert await client.is_model_ready("add_one")
    floats, numbers = np.ones((2, 16), np.float32), np.array([[2**40]], np.int64)
    for raw in (True, False):
        answer = await client.infer(request("add_one", "x", floats, "FP32", raw=raw))
        np.testing.assert_array_equal(answer.outputs[0].as_numpy(), floats + 1)
        answer = await client.infer(request("double", "x", numbers, "INT64", raw=raw))
        np.testing.assert_array_equal(answer.outputs[0].as_numpy(), numbers + numbers)
    try:
        await client.infer(request("nope", "x", floats, "FP32", raw=True))
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.NOT_FOUND, error
    else:
        raise AssertionError("an unknown model answered")
    await client.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
