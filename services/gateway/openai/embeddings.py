"""/v1/embeddings: from OpenAI's request to requests for tensors, and back. Pure."""

import base64
from collections.abc import Iterable, Iterator
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from headrace.inference.grpc_service_pb2 import ModelInferRequest, ModelInferResponse
from services.common.errors import InvalidArgument, Unimplemented
from services.common.tensors import pack_bytes
from services.gateway.openai.schemas import Part
from services.gateway.routes import Route

MOST_INPUTS = 2048
Input = str | list[int]


class EmbeddingRequest(Part):
    """POST /v1/embeddings."""

    model: str
    input: str | list[str] | list[int] | list[list[int]]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None


def inference_requests(asked: EmbeddingRequest, route: Route) -> list[ModelInferRequest]:
    """As many as the model's batch size makes of it, in order.

    Raises:
        InvalidArgument, Unimplemented: it does not fit the model.
    """
    spec = route.spec_version.spec
    if not spec.HasField("embedding"):
        raise InvalidArgument(f"model '{route.name}' makes no embeddings; push it with `runtime: embedding`")
    if asked.dimensions is not None and asked.dimensions != spec.embedding.dimensions:
        raise Unimplemented(
            f"dimensions is {asked.dimensions}; vectors of '{route.name}' have {spec.embedding.dimensions}, and none is"
            " cut: leave it out"
        )
    inputs = _inputs(asked.input)
    if not 1 <= len(inputs) <= MOST_INPUTS:
        raise InvalidArgument(f"input holds {len(inputs)} texts; expected 1 to {MOST_INPUTS}")
    for number, each in enumerate(inputs):
        if not each:
            raise InvalidArgument(f"input {number} is empty; send at least one character or token")
    size = spec.batching.max_batch_size or 1
    return [_request(route, inputs[begin : begin + size]) for begin in range(0, len(inputs), size)]


def answer(asked: EmbeddingRequest, responses: Iterable[ModelInferResponse]) -> dict[str, Any]:
    """OpenAI's object."""
    data: list[dict[str, Any]] = []
    tokens = 0
    for response in responses:
        raw = dict(zip((output.name for output in response.outputs), response.raw_output_contents, strict=True))
        counts = np.frombuffer(raw["tokens"], np.int32)
        tokens += int(counts.sum())
        for vector in np.frombuffer(raw["embedding"], np.float32).reshape(len(counts), -1):
            data.append({"object": "embedding", "index": len(data), "embedding": _encoded(vector, asked)})
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": data, "model": asked.model, "usage": usage}


def _encoded(vector: NDArray[np.float32], asked: EmbeddingRequest) -> str | list[float]:
    """Base64 is of little-endian float32."""
    if asked.encoding_format == "base64":
        return base64.b64encode(vector.astype("<f4").tobytes()).decode()
    numbers: list[float] = vector.tolist()
    return numbers


def _inputs(given: str | list[str] | list[int] | list[list[int]]) -> list[Input]:
    if isinstance(given, str):
        return [given]
    if given and isinstance(given[0], int):
        return [[token for token in given if isinstance(token, int)]]
    return [each for each in given if not isinstance(each, int)]


def _request(route: Route, inputs: list[Input]) -> ModelInferRequest:
    """Rows that are all texts or all token ids: pydantic has seen to that."""
    request = ModelInferRequest(model_name=route.name, model_version=str(route.version))
    if isinstance(inputs[0], str):
        request.inputs.add(name="text_input", datatype="BYTES", shape=[len(inputs)])
        request.raw_input_contents.append(pack_bytes(np.array(inputs, dtype=object)))
        return request
    ids = [list(_checked(each)) for each in inputs]
    longest = max(map(len, ids))
    request.inputs.add(name="token_ids", datatype="INT64", shape=[len(ids), longest])
    padded = np.array([[*each, *[-1] * (longest - len(each))] for each in ids], np.int64)
    request.raw_input_contents.append(padded.tobytes())
    return request


def _checked(tokens: Input) -> Iterator[int]:
    for token in tokens:
        if not isinstance(token, int) or not 0 <= token < 2**31:
            raise InvalidArgument("token ids are numbers from 0 to the model's vocabulary")
        yield token
