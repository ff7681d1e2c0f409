"""The endpoints."""

import asyncio
import json
import secrets
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from headrace.inference.grpc_service_pb2 import ModelInferRequest, ModelInferResponse
from headrace.v1.text_generation_pb2 import GenerateRequest, TextChunk, Usage
from services.common.errors import HeadraceError, NotFound
from services.gateway.backend import Events, TextEnd
from services.gateway.calls import Call, UnaryHandler, check_use, may_use, request_key
from services.gateway.door import tenant_in
from services.gateway.openai.answers import ChatForm, CompletionForm, Form, Head, usage_of
from services.gateway.openai.embeddings import EmbeddingRequest, answer, inference_requests
from services.gateway.openai.errors import event_of
from services.gateway.openai.leaving import EventStream, while_there
from services.gateway.openai.merging import merged
from services.gateway.openai.requests import chat_request, completion_requests
from services.gateway.openai.schemas import ChatCompletionRequest, CompletionRequest, Sampling
from services.gateway.routes import Route, Routes
from services.gateway.text.collecting import joined
from services.gateway.text.service import TextGeneration


def openai_router(text: TextGeneration, routes: Routes, infer: UnaryHandler) -> APIRouter:
    """The endpoints over the same generations, and the same inference, that gRPC has.

    Args:
        infer: the handler of ModelInfer.
    """
    router = APIRouter(prefix="/v1", tags=["openai"])

    @router.get("/models")
    async def models(http: Request) -> dict[str, Any]:
        """Every model that reads text; its versions and aliases are reached as NAME:VERSION."""
        call = _call(http)
        served = [name for name in routes.names() if routes.versions(name) and not routes.unloaded(name)]
        latest = [routes.resolve(name, "") for name in served if may_use(call, name)]
        return {"object": "list", "data": [_model(route, route.name) for route in latest if _reads_text(route)]}

    @router.get("/models/{name}")
    async def model(name: str, http: Request) -> dict[str, Any]:
        """One of them."""
        base, _, version = name.partition(":")
        check_use(_call(http), base)
        route = routes.resolve(base, version)
        if not _reads_text(route):
            raise NotFound(f"'{name}' is no language model; it is served by the Open Inference Protocol at /v2")
        return _model(route, name)

    @router.post("/completions")
    async def completions(asked: CompletionRequest, http: Request) -> Response:
        """Text that goes on after a prompt."""
        requests = completion_requests(asked)
        sequences = asked.n or 1
        echoes = {}
        if asked.echo:
            for number in range(len(requests) * sequences):
                echoes[number] = requests[number // sequences].text
        form = CompletionForm(echoes, logprobs=asked.logprobs is not None)
        return await _answer(http, text, requests, asked, form)

    @router.post("/chat/completions")
    async def chat(asked: ChatCompletionRequest, http: Request) -> Response:
        """The next message of a chat."""
        form = ChatForm(logprobs=bool(asked.logprobs))
        return await _answer(http, text, [chat_request(asked)], asked, form)

    @router.post("/embeddings")
    async def embeddings(asked: EmbeddingRequest, http: Request) -> Response:
        """Vectors of texts."""
        name, _, version = asked.model.partition(":")
        call = _call(http)
        check_use(call, name)
        route = routes.pick(name, version, lambda: request_key(call)).route
        requests = inference_requests(asked, route)
        return JSONResponse(answer(asked, await while_there(http.receive, _responses(infer, call, requests))))

    return router


async def _responses(infer: UnaryHandler, call: Call, requests: list[ModelInferRequest]) -> list[ModelInferResponse]:
    """All at once, in order; the first error ends all."""

    async def one(request: ModelInferRequest) -> ModelInferResponse:
        body = await infer(replace(call, trailing={}), request.SerializeToString())
        return ModelInferResponse.FromString(body)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(request)) for request in requests]
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]


def _reads_text(route: Route) -> bool:
    return route.text or route.spec_version.spec.HasField("embedding")


def _model(route: Route, name: str) -> dict[str, Any]:
    version = route.spec_version
    length = version.spec.text.max_model_len or version.spec.embedding.max_length or None
    created = version.created_unix_ms // 1000
    return {"id": name, "object": "model", "created": created, "owned_by": "headrace", "max_model_len": length}


def _call(http: Request) -> Call:
    return Call(http.url.path, dict(http.headers), tenant=tenant_in(http.scope))


async def _answer(
    http: Request, text: TextGeneration, requests: list[GenerateRequest], asked: Sampling, form: Form
) -> Response:
    call = _call(http)
    generations = [text.begin(call, request) for request in requests]
    events = merged([generation.events for generation in generations], asked.n or 1)
    head = Head(f"{form.prefix}-{secrets.token_hex(12)}", int(time.time()), asked.model)
    if not asked.stream:
        whole = await while_there(http.receive, _whole(events))
        choices = [form.choice(chunk) for chunk in whole.sequences]
        return JSONResponse({**head.around(form.whole, choices), "usage": usage_of(whole.usages)})
    # Errors until the first token are answered with their status; later ones come as an event.
    first = await while_there(http.receive, anext(events))
    with_usage = asked.stream_options is not None and asked.stream_options.include_usage
    return EventStream(_stream(first, events, head, form, with_usage=with_usage))


@dataclass(frozen=True, slots=True)
class _Whole:
    sequences: list[TextChunk]
    usages: list[Usage]


async def _whole(events: Events) -> _Whole:
    chunks: list[TextChunk] = []
    usages: list[Usage] = []
    async with aclosing(events):
        async for event in events:
            if isinstance(event, TextEnd):
                usages.append(event.usage)
            else:
                chunks.append(event)
    return _Whole(joined(chunks), usages)


async def _stream(
    first: TextChunk | TextEnd, events: Events, head: Head, form: Form, *, with_usage: bool
) -> AsyncGenerator[bytes, None]:
    """Events as they are on the wire. An error ends them; then there is no [DONE] to take for success."""
    usages: list[Usage] = []
    # Where usage is asked for, OpenAI has a null in every chunk but the last.
    extra = {"usage": None} if with_usage else {}

    def event_for(event: TextChunk | TextEnd) -> bytes:
        if isinstance(event, TextEnd):
            usages.append(event.usage)
            return b""
        return _data({**head.around(form.part, [form.delta(event)]), **extra})

    async with aclosing(events):
        if data := event_for(first):
            yield data
        try:
            async for event in events:
                if data := event_for(event):
                    yield data
        except HeadraceError as error:
            yield event_of(error)
            return
    if with_usage:
        yield _data({**head.around(form.part, []), "usage": usage_of(usages)})
    yield b"data: [DONE]\n\n"


def _data(value: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"
