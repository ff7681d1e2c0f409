"""TextGenerationService, and what the other faces of generation stand on: check, hand to the backend, watch."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, replace

from google.protobuf.message import DecodeError

from headrace.v1.text_generation_pb2 import GenerateRequest, GenerateResponse, GenerateStreamResponse
from services.common.errors import InvalidArgument
from services.gateway.backend import Backend, Events, TextEnd, Work
from services.gateway.background import placed
from services.gateway.calls import Call, MethodTable, Stream, Unary, check_use, request_key
from services.gateway.observation import Observer
from services.gateway.receipts import receipt_json
from services.gateway.routes import Route, Routes
from services.gateway.text.checks import check
from services.gateway.text.collecting import Collected, collect

SERVICE = "headrace.v1.TextGenerationService"


@dataclass(frozen=True, slots=True)
class Generation:
    """One that was checked and accepted; nothing happens before its events are asked for. Close them when done."""

    route: Route
    events: Events


class TextGeneration:
    """Generates for every protocol."""

    def __init__(self, routes: Routes, backend: Backend, observer: Observer) -> None:
        self._routes = routes
        self._backend = backend
        self._observer = observer

    def methods(self) -> MethodTable:
        """Full method path → handler."""
        return {
            f"/{SERVICE}/Generate": Unary(self.generate),
            f"/{SERVICE}/GenerateStream": Stream(self.generate_stream),
        }

    def begin(self, call: Call, request: GenerateRequest, body: bytes = b"") -> Generation:
        """Checks a request.

        Args:
            body: the request as it came, if it came serialised: it is passed on untouched.

        Raises:
            PermissionDenied: the caller may not use the model.
            NotFound: no such model.
            InvalidArgument: it does not fit the model.
        """
        check_use(call, request.model)
        # Copies of generations would cost as much as the generations: language models have no shadows.
        route = placed(call, self._routes.pick(request.model, request.version, lambda: request_key(call)).route)
        try:
            sequences = check(request, route)
        except BaseException as error:
            self._observer.begin(call, route).failed(error)
            raise
        timeout = route.timeout
        if call.deadline is not None:
            timeout = max(0.0, call.deadline - asyncio.get_running_loop().time())
        work = Work(route, body or request.SerializeToString(), sequences, timeout, tenant=call.tenant)
        return Generation(route, self._events(call, work))

    async def generate(self, call: Call, body: bytes) -> bytes:
        """The whole text at once; the receipt goes into the trailing metadata."""
        generation = self.begin(call, parse(body), body)
        collected = await collect(generation.events)
        call.trailing["headrace-receipt"] = receipt_json(collected.end.receipt)
        return response(collected, generation.route).SerializeToString()

    async def generate_stream(self, call: Call, requests: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Pieces as they come, then the usage."""
        body = await anext(requests, None)
        if body is None:
            raise InvalidArgument("the call brought no request; send one headrace.v1.GenerateRequest")
        generation = self.begin(call, parse(body), body)
        version = generation.route.version
        async with aclosing(generation.events) as events:
            async for event in events:
                if isinstance(event, TextEnd):
                    call.trailing["headrace-receipt"] = receipt_json(event.receipt)
                    yield GenerateStreamResponse(usage=event.usage, model_version=version).SerializeToString()
                else:
                    yield GenerateStreamResponse(chunk=event, model_version=version).SerializeToString()

    async def _events(self, call: Call, work: Work) -> Events:
        """Observed from the moment when somebody reads."""
        observed = self._observer.begin(call, work.route)
        series = self._observer.generations.of(work.route.name, work.route.version)
        began, first, timed = time.monotonic(), 0.0, not work.route.background
        try:
            async with aclosing(self._backend.generate(replace(work, trace=observed.trace))) as events:
                async for event in events:
                    if isinstance(event, TextEnd):
                        observed.answered(work.rows, event.receipt)
                        usage = event.usage
                        seconds = time.monotonic() - began
                        series.ended(seconds, first, usage.prompt_tokens, usage.completion_tokens, timed=timed)
                        yield event
                        return
                    if not first:
                        first = time.monotonic() - began
                        if timed:
                            series.began(first)
                    yield event
        except BaseException as error:
            observed.failed(error)
            raise


def parse(body: bytes) -> GenerateRequest:
    """The request message. Raises InvalidArgument."""
    try:
        return GenerateRequest.FromString(body)
    except DecodeError as error:
        raise InvalidArgument("the message is not a headrace.v1.GenerateRequest; check the client's stubs") from error


def response(collected: Collected, route: Route) -> GenerateResponse:
    """The unary answer."""
    return GenerateResponse(sequences=collected.sequences, usage=collected.end.usage, model_version=route.version)
