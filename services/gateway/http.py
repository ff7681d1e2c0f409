"""The protocol over HTTP: health, metadata and inference in JSON, as KServe v2 has them. Docs at /docs."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from google.protobuf.json_format import MessageToDict

from headrace.inference import grpc_service_pb2 as pb
from services.common.errors import HeadraceError, status_of
from services.common.tenants.access import Access
from services.gateway.background import PRIORITY
from services.gateway.body_limit import BodyLimit
from services.gateway.calls import KEY, Call, MethodTable, Unary
from services.gateway.door import TRAILER, HttpDoor, tenant_in
from services.gateway.openai import errors as openai_errors
from services.gateway.protocol.json_tensors import request_from_json, response_to_json
from services.gateway.protocol.service import SERVICE

# What of a request's headers is metadata to the handlers.
_METADATA = ("traceparent", KEY, PRIORITY)


def http_application(
    methods: MethodTable, *further: APIRouter, access: Access | None = None, most_bytes: int
) -> FastAPI:
    """An ASGI application over the same handlers that gRPC has, and further endpoints.

    Args:
        methods: not guarded: the door of this application has found the tenant when they are called.
        access: None: no keys are asked for.
        most_bytes: of a request's body.
    """
    app = FastAPI(title="Headrace", description="The Open Inference Protocol (KServe v2) and OpenAI's over HTTP.")

    invoke = _invoker(methods)
    app.add_exception_handler(RequestValidationError, openai_errors.on_invalid)  # type: ignore[arg-type]  # narrower
    for router in further:
        app.include_router(router)
    app.add_middleware(BodyLimit, most=most_bytes, refuse=_refusal)
    if access is not None:
        app.add_middleware(HttpDoor, access=access, refuse=_refusal)

    @app.exception_handler(HeadraceError)
    async def on_error(request: Request, error: HeadraceError) -> JSONResponse:
        return _refusal(request.url.path, error)

    @app.get("/v2/health/live", tags=["health"])
    async def live() -> Response:
        """The process is up."""
        return Response(status_code=200)

    @app.get("/v2/health/ready", tags=["health"])
    async def ready(http: Request) -> Response:
        """The gateway could take a request: 200, else 503."""
        body, _ = await invoke("ServerReady", b"", http)
        return Response(status_code=200 if pb.ServerReadyResponse.FromString(body).ready else 503)

    @app.get("/v2", tags=["server"])
    async def server(http: Request) -> dict[str, Any]:
        """Name, version and extensions."""
        body, _ = await invoke("ServerMetadata", b"", http)
        return _dict(pb.ServerMetadataResponse.FromString(body))

    _add_model_routes(app, invoke)
    return app


def _refusal(path: str, error: HeadraceError) -> JSONResponse:
    """An error in the form of the protocol that the path belongs to."""
    if path.startswith(openai_errors.PREFIX):
        return openai_errors.response_of(error)
    return JSONResponse({"error": str(error)}, status_of(error).http, openai_errors.retry_header(error))


# The method's name, its message, and the request that it came with.
Invoke = Callable[[str, bytes, Request], Awaitable[tuple[bytes, Call]]]


def _invoker(methods: MethodTable) -> Invoke:
    async def invoke(name: str, body: bytes, http: Request) -> tuple[bytes, Call]:
        path = f"/{SERVICE}/{name}"
        method = methods[path]
        assert isinstance(method, Unary)
        metadata = {key: http.headers[key] for key in _METADATA if key in http.headers}
        call = Call(path, metadata, tenant=tenant_in(http.scope))
        if call.tenant is not None:
            call.trailing[TRAILER] = call.tenant.name
        return await method.handler(call, body), call

    return invoke


def _add_model_routes(app: FastAPI, invoke: Invoke) -> None:
    @app.get("/v2/models/{name}/ready", tags=["models"])
    @app.get("/v2/models/{name}/versions/{version}/ready", tags=["models"])
    async def model_ready(name: str, http: Request, version: str = "") -> Response:
        """A request to this model would find a worker: 200, else 503."""
        request = pb.ModelReadyRequest(name=name, version=version)
        body, _ = await invoke("ModelReady", request.SerializeToString(), http)
        return Response(status_code=200 if pb.ModelReadyResponse.FromString(body).ready else 503)

    @app.get("/v2/models/{name}", tags=["models"])
    @app.get("/v2/models/{name}/versions/{version}", tags=["models"])
    async def model(name: str, http: Request, version: str = "") -> dict[str, Any]:
        """Inputs and outputs."""
        request = pb.ModelMetadataRequest(name=name, version=version)
        body, _ = await invoke("ModelMetadata", request.SerializeToString(), http)
        metadata = pb.ModelMetadataResponse.FromString(body)
        tensors = {
            key: [{"name": t.name, "datatype": t.datatype, "shape": list(t.shape)} for t in getattr(metadata, key)]
            for key in ("inputs", "outputs")
        }
        return {"name": name, "versions": list(metadata.versions), "platform": metadata.platform, **tensors}

    @app.post("/v2/models/{name}/infer", tags=["inference"])
    @app.post("/v2/models/{name}/versions/{version}/infer", tags=["inference"])
    async def infer(name: str, http: Request, version: str = "") -> Response:
        """Runs the model on the tensors in the body."""
        request = request_from_json(await http.body(), name, version)
        body, call = await invoke("ModelInfer", request.SerializeToString(), http)
        response = response_to_json(pb.ModelInferResponse.FromString(body))
        headers = {key: value for key, value in call.trailing.items() if isinstance(value, str)}
        return Response(json.dumps(response), media_type="application/json", headers=headers)


def _dict(message: Any) -> dict[str, Any]:
    return MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
