"""ModelInfer and ModelStreamInfer: parse, check, hand to the backend, pass its bytes on."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace

from google.protobuf.message import DecodeError

from headrace.inference.grpc_service_pb2 import ModelInferRequest, ModelInferResponse, ModelStreamInferResponse
from services.common.errors import HeadraceError, InvalidArgument
from services.gateway.backend import Answer, Backend, Work
from services.gateway.background import placed
from services.gateway.calls import KEY, Call, request_key
from services.gateway.observation import Observer
from services.gateway.receipts import receipt_json
from services.gateway.routes import Route, Routes
from services.gateway.shadows import Shadows
from services.gateway.text.triton import TritonText

# Requests of one stream that may be under way at a time; further ones wait unread.
STREAM_WINDOW = 256
# Answers in their order: tasks whose result is awaited, or what is ready to be sent; None ends them.
UnderWay = asyncio.Queue[asyncio.Task[bytes] | bytes | None]


class Inference:
    """The two methods that run models."""

    def __init__(
        self, routes: Routes, backend: Backend, observer: Observer, text: TritonText, shadows: Shadows | None
    ) -> None:
        self._routes = routes
        self._backend = backend
        self._observer = observer
        self._text = text
        self._shadows = shadows

    async def model_infer(self, call: Call, body: bytes) -> bytes:
        """One request, one response; the receipt goes into the trailing metadata."""
        answer = await self._infer(call, parse(body), body)
        call.trailing["headrace-receipt"] = receipt_json(answer.receipt)
        return answer.body

    async def model_stream_infer(self, call: Call, requests: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Answers in the order of the requests, many under way at once; an error does not end the stream.

        A language model's answers come as they come, each with its request's id.

        Raises what the host finds wrong with the stream itself, once all that came before is answered.
        """
        under_way: UnderWay = asyncio.Queue(STREAM_WINDOW)
        broken: HeadraceError | None = None

        async def read(group: asyncio.TaskGroup) -> None:
            nonlocal broken
            texts: list[asyncio.Task[None]] = []
            try:
                async for body in requests:
                    if (found := self._as_text(call, body)) is not None:
                        texts.append(group.create_task(self._stream_text(call, *found, under_way)))
                    else:
                        await under_way.put(group.create_task(self._stream_item(call, body)))
            except HeadraceError as error:
                broken = error
            await asyncio.gather(*texts)
            await under_way.put(None)

        async with asyncio.TaskGroup() as group:
            reader = group.create_task(read(group))
            try:
                while (item := await under_way.get()) is not None:
                    yield item if isinstance(item, bytes) else await item
            except (GeneratorExit, asyncio.CancelledError):
                reader.cancel()
                while not under_way.empty():
                    if isinstance(task := under_way.get_nowait(), asyncio.Task):
                        task.cancel()
                raise
        if broken is not None:
            raise broken

    async def _stream_item(self, call: Call, body: bytes) -> bytes:
        request: ModelInferRequest | None = None
        try:
            request = parse(body)
            answer = await self._infer(call, request, body)
        except HeadraceError as error:
            return _error(request, error)
        response = ModelStreamInferResponse(infer_response=ModelInferResponse.FromString(answer.body))
        if request.parameters["triton_enable_empty_final_response"].bool_param:
            response.infer_response.parameters["triton_final_response"].bool_param = True
        return response.SerializeToString()

    def _as_text(self, call: Call, body: bytes) -> tuple[ModelInferRequest, Route] | None:
        """The request and its route if it is one to a language model; what is wrong with others is found later."""
        if not self._routes.any_text:
            return None
        try:
            request = parse(body)
            route = self._routes.pick(request.model_name, request.model_version, lambda: _key(call, request)).route
        except HeadraceError:
            return None
        return (request, route) if route.text else None

    async def _stream_text(self, call: Call, request: ModelInferRequest, route: Route, out: UnderWay) -> None:
        try:
            async with aclosing(self._text.stream(call, request, route)) as responses:
                async for response in responses:
                    await out.put(ModelStreamInferResponse(infer_response=response).SerializeToString())
        except HeadraceError as error:
            await out.put(_error(request, error))

    async def _infer(self, call: Call, request: ModelInferRequest, body: bytes) -> Answer:
        if call.tenant is not None:
            call.tenant.check_use(request.model_name)
        pick = self._routes.pick(request.model_name, request.model_version, lambda: _key(call, request))
        route = placed(call, pick.route)
        if route.text:
            return await self._text.infer(call, request, route)
        observed = self._observer.begin(call, route)
        try:
            rows = route.signature.check(request)
            work = Work(route, body, rows, _timeout(call, request, route.timeout), observed.trace, call.tenant)
            if route.levels:
                work = replace(work, level=_level(request, route))
            answer = await self._backend.infer(work)
        except BaseException as error:
            observed.failed(error)
            raise
        observed.answered(rows, answer.receipt)
        # A trial is judged by what callers ask for.
        if pick.shadow is not None and self._shadows is not None and not route.background:
            self._shadows.copy(pick.shadow, request, body, answer.body)
        return answer


def _error(request: ModelInferRequest | None, error: HeadraceError) -> bytes:
    """An error on a stream, with the id of its request where that could be read."""
    response = ModelStreamInferResponse(error_message=str(error))
    if request is not None:
        response.infer_response.id = request.id
        response.infer_response.model_name = request.model_name
    return response.SerializeToString()


def _key(call: Call, request: ModelInferRequest) -> str:
    """What a rollout's choice sticks to: the request's own parameter, else the call's metadata."""
    if KEY in request.parameters:
        return request.parameters[KEY].string_param
    return request_key(call)


def parse(body: bytes) -> ModelInferRequest:
    """The request message. Raises InvalidArgument."""
    try:
        return ModelInferRequest.FromString(body)
    except DecodeError as error:
        raise InvalidArgument("the message is not a ModelInferRequest; check the client's stubs") from error


def _timeout(call: Call, request: ModelInferRequest, default: float) -> float:
    """Seconds to the deadline: the call's own, Triton's `timeout` parameter in microseconds, or the model's default."""
    timeout = default
    if call.deadline is not None:
        timeout = max(0.0, call.deadline - asyncio.get_running_loop().time())
    if "timeout" in request.parameters:
        microseconds = _integer(request, "timeout", "it takes microseconds in int64_param")
        if microseconds < 0:
            raise InvalidArgument(f"parameter 'timeout' is {microseconds}; it takes microseconds above 0")
        if microseconds:
            timeout = min(timeout, microseconds / 1e6)
    return timeout


def _level(request: ModelInferRequest, route: Route) -> int:
    """Triton's `priority` parameter, of a model with levels."""
    if "priority" not in request.parameters:
        return route.level
    levels = f"model '{route.name}' has levels 1, the highest, to {route.levels}; 0 is its default, {route.level}"
    level = _integer(request, "priority", levels)
    if not 0 <= level <= route.levels:
        raise InvalidArgument(f"parameter 'priority' is {level}; {levels}")
    return level or route.level


def _integer(request: ModelInferRequest, name: str, expected: str) -> int:
    asked = request.parameters[name]
    if asked.WhichOneof("parameter_choice") not in {"int64_param", "uint64_param"}:
        raise InvalidArgument(f"parameter '{name}' is no integer; {expected}")
    return asked.int64_param or asked.uint64_param
