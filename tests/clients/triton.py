"""NVIDIA's client against a running stack, run by tests/e2e/test_clients.py: `python triton.py HOST:PORT`."""

import asyncio
import queue
import sys
from typing import Any

import numpy as np
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio


def tensor(name: str, values: Any, datatype: str) -> Any:
    """An input with raw contents."""
    made = triton.InferInput(name, list(values.shape), datatype)
    made.set_data_from_numpy(values)
    return made


FLOATS = np.arange(32, dtype=np.float32).reshape(2, 16)
TEXT = np.array([["größe".encode()], [b""]], object)


def server(client: Any) -> None:
    """Health, metadata, configuration, statistics, repository."""
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("add_one")
    assert client.get_server_metadata().name
    metadata = client.get_model_metadata("add_one")
    assert [(item.name, item.datatype, list(item.shape)) for item in metadata.inputs] == [("x", "FP32", [-1, 16])]
    assert client.get_model_config("add_one").config.max_batch_size == 64
    client.infer("double", [tensor("x", np.array([[1]], np.int64), "INT64")])
    assert client.get_inference_statistics("double").model_stats[0].inference_count >= 1
    assert "add_one" in {model.name for model in client.get_model_repository_index().models}


def inference(client: Any) -> None:
    """FP32, INT64 and BYTES, a chosen output, a request id."""
    answer = client.infer(
        "add_one", [tensor("x", FLOATS, "FP32")], outputs=[triton.InferRequestedOutput("y")], request_id="mine"
    )
    np.testing.assert_array_equal(answer.as_numpy("y"), FLOATS + 1)
    assert answer.get_response().id == "mine"
    numbers = np.array([[2**40], [-3]], np.int64)
    np.testing.assert_array_equal(
        client.infer("double", [tensor("x", numbers, "INT64")]).as_numpy("y"), numbers + numbers
    )
    echoed = client.infer("echo_text", [tensor("text", TEXT, "BYTES")]).as_numpy("echoed")
    assert echoed.tolist() == TEXT.tolist()


def concurrent(client: Any) -> None:
    """Callbacks from many requests at once; each gets its own answer."""
    answers: queue.Queue[Any] = queue.Queue()
    for number in range(64):
        values = np.full((1, 16), number, np.float32)
        client.async_infer(
            "add_one",
            [tensor("x", values, "FP32")],
            callback=lambda result, error, number=number: answers.put((number, result, error)),
        )
    for _ in range(64):
        number, result, error = answers.get(timeout=30)
        assert error is None, error
        assert result.as_numpy("y")[0, 0] == number + 1


def streaming(client: Any) -> None:
    """One stream: answers in order, an error does not end it."""
    answers: queue.Queue[Any] = queue.Queue()
    client.start_stream(callback=lambda result, error: answers.put((result, error)))
    for model in ("double", "nope", "double"):
        client.async_stream_infer(model, [tensor("x", np.array([[21]], np.int64), "INT64")])
    first, second, third = (answers.get(timeout=30) for _ in range(3))
    assert first[0].as_numpy("y").tolist() == third[0].as_numpy("y").tolist() == [[42]]
    assert "no model 'nope'" in str(second[1])
    client.stop_stream()


def errors(client: Any) -> None:
    """The right codes."""
    cases = {
        "NOT_FOUND": ("nope", FLOATS, "FP32"),
        "INVALID_ARGUMENT": ("add_one", np.zeros((1, 3), np.float32), "FP32"),
    }
    for code, (model, values, datatype) in cases.items():
        try:
            client.infer(model, [tensor("x", values, datatype)])
        except triton.InferenceServerException as error:
            assert code in str(error.status()), (code, error)
        else:
            raise AssertionError(f"{model} answered; expected {code}")


async def asynchronous(address: str) -> None:
    """The asyncio client, compressed."""
    async with triton_aio.InferenceServerClient(address) as client:
        answer = await client.infer("add_one", [tensor("x", FLOATS, "FP32")], compression_algorithm="gzip")
        np.testing.assert_array_equal(answer.as_numpy("y"), FLOATS + 1)


def main(address: str) -> None:
    """Everything."""
    with triton.InferenceServerClient(address) as client:
        for check in (server, inference, concurrent, streaming, errors):
            check(client)
    asyncio.run(asynchronous(address))


if __name__ == "__main__":
    main(sys.argv[1])
