"""ModelInfer and ModelStreamInfer: parse, check, hand to the backend, pass its bytes on."""

import asyncio
import json
from collections.abc import AsyncIterator

from google.protobuf.message import DecodeError

from headrace.inference.grpc_service_pb2 import ModelInferRequest, ModelInferResponse, ModelStreamInferResponse
from headrace.v1.reply_pb2 import Receipt
from services.common.errors import HeadraceError, InvalidArgument
from services.gateway.backend import Answer, Backend, Work
from services.gateway.calls import Call
from services.gateway.observation import Observer
from services.gateway.routes import Routes

# Requests of one stream that may be under way at a time; further ones wait unread.
STREAM_WINDOW = 256


class Inference:
    """The two methods that run models."""

    def __init__(self, routes: Routes, backend: Backend, observer: Observer) -> None:
        self._routes = routes
        self._backend = backend
        self._observer = observer

    async def model_infer(self, call: Call, body: bytes) -> bytes:
        """One request, one response; the receipt goes into the trailing metadata."""
        answer = await self._infer(call, parse(body), body)
        call.trailing["headrace-receipt"] = receipt_json(answer.receipt)
        return answer.body

    async def model_stream_infer(self, call: Call, requests: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Answers in the order of the requests, many under way at once; an error does not end the stream.

        Raises what the host finds wrong with the stream itself, once all that came before is answered.
        """
        under_way: asyncio.Queue[asyncio.Task[bytes] | None] = asyncio.Queue(STREAM_WINDOW)
        broken: HeadraceError | None = None

        async def read(group: asyncio.TaskGroup) -> None:
            nonlocal broken
            try:
                async for body in requests:
                    await under_way.put(group.create_task(self._stream_item(call, body)))
            except HeadraceError as error:
                broken = error
            await under_way.put(None)

        async with asyncio.TaskGroup() as group:
            reader = group.create_task(read(group))
            try:
                while (item := await under_way.get()) is not None:
                    yield await item
            except (GeneratorExit, asyncio.CancelledError):
                reader.cancel()
                while not under_way.empty():
                    if (task := under_way.get_nowait()) is not None:
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
            response = ModelStreamInferResponse(error_message=str(error))
            if request is not None:
                response.infer_response.id = request.id
                response.infer_response.model_name = request.model_name
            return response.SerializeToString()
        response = ModelStreamInferResponse(infer_response=ModelInferResponse.FromString(answer.body))
        if request.parameters["triton_enable_empty_final_response"].bool_param:
            response.infer_response.parameters["triton_final_response"].bool_param = True
        return response.SerializeToString()

    async def _infer(self, call: Call, request: ModelInferRequest, body: bytes) -> Answer:
        route = self._routes.resolve(request.model_name, request.model_version)
        observed = self._observer.begin(call, route)
        try:
            rows = route.signature.check(request)
            work = Work(route, body, rows, _timeout(call, request, route.timeout), observed.trace)
            answer = await self._backend.infer(work)
        except BaseException as error:
            observed.failed(error)
            raise
        observed.answered(rows, answer.receipt)
        return answer


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
        asked = request.parameters["timeout"]
        if asked.WhichOneof("parameter_choice") not in {"int64_param", "uint64_param"}:
            raise InvalidArgument("parameter 'timeout' is no integer; it takes microseconds in int64_param")
        microseconds = asked.int64_param or asked.uint64_param
        if microseconds < 0:
            raise InvalidArgument(f"parameter 'timeout' is {microseconds}; it takes microseconds above 0")
        if microseconds:
            timeout = min(timeout, microseconds / 1e6)
    return timeout


def receipt_json(receipt: Receipt) -> str:
    """The receipt as clients see it: times in microseconds."""
    return json.dumps(
        {
            "queue_us": receipt.queue_us,
            "batch_us": receipt.batch_us,
            "compute_us": receipt.compute_us,
            "batch_rows": receipt.batch_rows,
            "batch_requests": receipt.batch_requests,
            "model_version": receipt.model_version,
        },
        separators=(",", ":"),
    )
