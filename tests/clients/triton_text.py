"""NVIDIA's client and a language model, run by tests/e2e/test_text_clients.py: `triton_text.py HOST:PORT EXPECTED`."""

import json
import queue
import sys
from typing import Any

import numpy as np
import tritonclient.grpc as triton

MODEL = "words"


def tensor(name: str, value: Any, datatype: str) -> Any:
    """An input of one element."""
    made = triton.InferInput(name, [1], datatype)
    kinds = {"BYTES": object, "BOOL": bool, "INT32": np.int32, "FP32": np.float32}
    made.set_data_from_numpy(np.array([value], dtype=kinds[datatype]))
    return made


def prompt(*, stream: Any = False, **inputs: Any) -> list[Any]:
    """The inputs of a request."""
    made = [tensor("text_input", b"two words", "BYTES"), tensor("stream", stream, "BOOL")]
    return made + [tensor(name, value, datatype) for name, (value, datatype) in inputs.items()]


def text(result: Any) -> str:
    """What came."""
    return b"".join(result.as_numpy("text_output")).decode()


def metadata(client: Any) -> None:
    """What the model takes and gives."""
    answer = client.get_model_metadata(MODEL)
    assert ("text_input", "BYTES") in [(each.name, each.datatype) for each in answer.inputs]
    assert [each.name for each in answer.outputs] == ["text_output"]
    assert client.get_model_config(MODEL).config.model_transaction_policy.decoupled


def whole(client: Any, expected: str) -> None:
    """Sampling as parameters, as inputs and as JSON; the prompt stands before the text unless it is excluded."""
    answer = client.infer(MODEL, prompt(), parameters={"temperature": 0.0, "max_tokens": 12})
    assert text(answer) == "two words" + expected
    sampling = {"sampling_parameters": (json.dumps({"temperature": "0", "max_tokens": "12"}).encode(), "BYTES")}
    excluded = {"exclude_input_in_output": (True, "BOOL")}
    assert text(client.infer(MODEL, prompt(**sampling, **excluded))) == expected
    apart = {"max_tokens": (12, "INT32"), "temperature": (0.0, "FP32")}
    assert text(client.infer(MODEL, prompt(**apart, **excluded))) == expected


def streamed(client: Any, expected: str) -> None:
    """Two generations on one stream, told apart by their ids, and an error between them that ends neither."""
    answers: queue.Queue[Any] = queue.Queue()
    client.start_stream(callback=lambda result, error: answers.put((result, error)))
    parameters = {"temperature": 0.0, "max_tokens": 12}
    for name in ("a", "b"):
        client.async_stream_infer(
            MODEL, prompt(stream=True), request_id=name, parameters=parameters, enable_empty_final_response=True
        )
    client.async_stream_infer(MODEL, prompt(stream=True), request_id="bad", parameters={"temperature": -1.0})
    texts, pieces = {"a": "", "b": ""}, 0
    ended: set[str] = set()
    refusals: list[str] = []
    while len(ended) < 2 or not refusals:
        result, error = answers.get(timeout=30)
        if error is not None:
            refusals.append(str(error))
            continue
        response = result.get_response()
        if response.parameters["triton_final_response"].bool_param:
            ended.add(response.id)
        else:
            texts[response.id] += text(result)
            pieces += 1
    client.stop_stream()
    assert texts == {"a": expected, "b": expected}, texts
    assert pieces > 8, pieces
    assert len(refusals) == 1 and "temperature is -1" in refusals[0], refusals


def errors(client: Any) -> None:
    """What is unknown is named, with what is known."""
    for inputs, parameters, message in (
        (prompt(), {"temprature": 1.0}, "knows no temprature"),
        (prompt(), {"max_tokens": "many"}, "max_tokens"),
        ([tensor("stream", False, "BOOL")], {}, "text_input"),
    ):
        try:
            client.infer(MODEL, inputs, parameters=parameters)
        except triton.InferenceServerException as error:
            assert "INVALID_ARGUMENT" in str(error.status()) and message in error.message(), error
        else:
            raise AssertionError(f"{parameters} was taken")


def main(address: str, expected: dict[str, str]) -> None:
    """Everything."""
    with triton.InferenceServerClient(address) as client:
        metadata(client)
        whole(client, expected["completion"])
        streamed(client, expected["completion"])
        errors(client)


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
