"""Language models by Triton's convention: `text_input` in, `text_output` out, as its vLLM and TensorRT-LLM backends do.

Sampling comes as the request's parameters, as inputs of those names, or as one JSON object in `sampling_parameters`.
"""

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import numpy as np
from google.protobuf.json_format import ParseDict, ParseError

from headrace.inference.grpc_service_pb2 import InferParameter, ModelInferRequest, ModelInferResponse
from headrace.v1.text_generation_pb2 import FinishReason, GenerateRequest, SamplingParams, TextChunk
from services.common.errors import InvalidArgument
from services.common.tensors import decode_inputs, pack_bytes
from services.gateway.backend import Answer, TextEnd
from services.gateway.calls import Call
from services.gateway.routes import Route
from services.gateway.text.collecting import collect
from services.gateway.text.service import TextGeneration

_OWN = {"text_input", "stream", "exclude_input_in_output", "sampling_parameters"}
_SAMPLING = set(SamplingParams.DESCRIPTOR.fields_by_name)
# Triton's other names for the same.
_ALIASES = {"random_seed": "seed", "runtime_top_k": "top_k", "runtime_top_p": "top_p", "stop_words": "stop"}
_LISTS = {"stop", "stop_token_ids"}
# Parameters of requests that are not about sampling.
_OTHERS = ("timeout", "priority", "triton_", "sequence_", "binary_data_output", "request_id")


class TritonText:
    """Answers ModelInfer and ModelStreamInfer for language models."""

    def __init__(self, text: TextGeneration) -> None:
        self._text = text

    async def infer(self, call: Call, request: ModelInferRequest, route: Route) -> Answer:
        """The whole text; behind the prompt unless `exclude_input_in_output` is set, as Triton has it."""
        given = _given(request)
        prompt = _prompt(given)
        generation = self._text.begin(call, _generate(request, given, prompt))
        collected = await collect(generation.events)
        before = "" if given.get("exclude_input_in_output", False) else prompt
        response = _response(request, route, [before + chunk.text for chunk in collected.sequences])
        return Answer(response.SerializeToString(), collected.end.receipt)

    async def stream(
        self, call: Call, request: ModelInferRequest, route: Route
    ) -> AsyncGenerator[ModelInferResponse, None]:
        """With `stream` set a response for each piece, without it one; an empty last one for who asked for that."""
        given = _given(request)
        if not given.get("stream", False):
            answer = await self.infer(call, request, route)
            yield ModelInferResponse.FromString(answer.body)
        else:
            if given.get("exclude_input_in_output") is False:
                raise InvalidArgument("exclude_input_in_output is false; a stream never repeats its prompt")
            generation = self._text.begin(call, _generate(request, given, _prompt(given)))
            async with aclosing(generation.events) as events:
                async for event in events:
                    if not isinstance(event, TextEnd):
                        yield _piece(request, route, event)
        if request.parameters["triton_enable_empty_final_response"].bool_param:
            last = ModelInferResponse(model_name=route.name, model_version=str(route.version), id=request.id)
            last.parameters["triton_final_response"].bool_param = True
            yield last


def _given(request: ModelInferRequest) -> dict[str, Any]:
    """Everything that is said, by name, as plain values; inputs win over parameters, both over the JSON object."""
    inputs: dict[str, Any] = {}
    for name, array in decode_inputs(request).items():
        values = [each.decode(errors="replace") if isinstance(each, bytes) else each for each in array.ravel().tolist()]
        if name not in _LISTS and name not in _ALIASES and len(values) != 1:
            raise InvalidArgument(f"input '{name}' has {len(values)} elements; expected 1")
        inputs[name] = values if len(values) != 1 else values[0]
    parameters = {name: _plain(value) for name, value in request.parameters.items() if not name.startswith(_OTHERS)}
    given = {_ALIASES.get(name, name): value for name, value in {**parameters, **inputs}.items()}
    if unknown := given.keys() - _OWN - _SAMPLING:
        known = ", ".join(sorted(_OWN | _SAMPLING))
        raise InvalidArgument(f"a language model knows no {', '.join(sorted(unknown))}; it takes {known}")
    return given


def _plain(parameter: InferParameter) -> Any:
    choice = parameter.WhichOneof("parameter_choice")
    return getattr(parameter, choice) if choice else None


def _prompt(given: dict[str, Any]) -> str:
    prompt = given.get("text_input")
    if not isinstance(prompt, str):
        raise InvalidArgument("input 'text_input' is missing; expected BYTES of shape [1] or [1, 1] with the prompt")
    return prompt


def _generate(request: ModelInferRequest, given: dict[str, Any], prompt: str) -> GenerateRequest:
    said = {**_object(given.get("sampling_parameters")), **{key: given[key] for key in given.keys() & _SAMPLING}}
    for name in _LISTS & said.keys():
        said[name] = said[name] if isinstance(said[name], list) else [said[name]]
    try:
        # Numbers may come as text, as in Triton's own examples; protobuf's JSON form takes them so.
        sampling = ParseDict(said, SamplingParams())
    except ParseError as error:
        raise InvalidArgument(f"sampling parameters do not fit: {error}") from error
    return GenerateRequest(
        model=request.model_name,
        version=request.model_version,
        request_id=request.id,
        text=prompt,
        sampling=sampling,
    )


def _object(text: object) -> dict[str, Any]:
    if not text:
        return {}
    try:
        value = json.loads(str(text))
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"sampling_parameters is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise InvalidArgument(f"sampling_parameters is a {type(value).__name__}; expected a JSON object")
    return {key: each for key, each in value.items() if each is not None}


def _piece(request: ModelInferRequest, route: Route, chunk: TextChunk) -> ModelInferResponse:
    response = _response(request, route, [chunk.text])
    if chunk.index:
        response.parameters["index"].int64_param = chunk.index
    if chunk.finish_reason:
        reason = FinishReason.Name(chunk.finish_reason).removeprefix("FINISH_REASON_").lower()
        response.parameters["finish_reason"].string_param = reason
    response.parameters["triton_final_response"].bool_param = False
    return response


def _response(request: ModelInferRequest, route: Route, texts: list[str]) -> ModelInferResponse:
    response = ModelInferResponse(model_name=route.name, model_version=str(route.version), id=request.id)
    response.outputs.add(name="text_output", datatype="BYTES", shape=[len(texts)])
    response.raw_output_contents.append(pack_bytes(np.array(texts, dtype=object)))
    return response
