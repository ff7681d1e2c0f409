"""The table of the Open Inference Protocol's methods: everything but inference itself."""

from collections.abc import Awaitable, Callable
from importlib.metadata import version as package_version
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from headrace.inference import grpc_service_pb2 as pb
from services.common.errors import InvalidArgument, NotFound, Unimplemented
from services.gateway.backend import Backend
from services.gateway.calls import Call, MethodTable, Stream, Unary, UnaryHandler, check_use, may_use
from services.gateway.observation import Observer
from services.gateway.protocol.inference import Inference
from services.gateway.protocol.metadata import model_config, model_metadata
from services.gateway.protocol.repository import ModelControl, Repository
from services.gateway.routes import Route, Routes
from services.gateway.shadows import Shadows
from services.gateway.text.service import TextGeneration
from services.gateway.text.triton import TritonText

SERVICE = "inference.GRPCInferenceService"
EXTENSIONS = ["model_repository", "model_configuration", "statistics", "parameters", "schedule_policy"]

Request = TypeVar("Request", bound=Message)


def typed(kind: type[Request], answer: Callable[[Call, Request], Awaitable[Message]]) -> Unary:
    """A handler over bytes from one over messages; for everything off the hot path."""

    async def handler(call: Call, body: bytes) -> bytes:
        try:
            request = kind.FromString(body)
        except DecodeError as error:
            raise InvalidArgument(f"the message is not a {kind.DESCRIPTOR.full_name}") from error
        return (await answer(call, request)).SerializeToString()

    return Unary(handler)


class ProtocolService:
    """Health, metadata, configuration and statistics."""

    def __init__(
        self,
        routes: Routes,
        backend: Backend,
        observer: Observer,
        *,
        ready: Callable[[], bool],
        control: ModelControl,
        shadows: Shadows | None = None,
    ) -> None:
        self._routes = routes
        self._backend = backend
        self._observer = observer
        self._ready = ready
        self._repository = Repository(routes, backend, control)
        text = TritonText(TextGeneration(routes, backend, observer))
        self._inference = Inference(routes, backend, observer, text, shadows)

    def methods(self) -> MethodTable:
        """Full method path → handler."""
        handlers: dict[str, Unary | Stream] = {
            "ModelInfer": Unary(self._inference.model_infer),
            "ModelStreamInfer": Stream(self._inference.model_stream_infer),
            "ServerLive": typed(pb.ServerLiveRequest, self.server_live),
            "ServerReady": typed(pb.ServerReadyRequest, self.server_ready),
            "ModelReady": typed(pb.ModelReadyRequest, self.model_ready),
            "ServerMetadata": typed(pb.ServerMetadataRequest, self.server_metadata),
            "ModelMetadata": typed(pb.ModelMetadataRequest, self.model_metadata),
            "ModelConfig": typed(pb.ModelConfigRequest, self.model_config),
            "ModelStatistics": typed(pb.ModelStatisticsRequest, self.model_statistics),
            "RepositoryIndex": typed(pb.RepositoryIndexRequest, self._repository.index),
            "RepositoryModelLoad": typed(pb.RepositoryModelLoadRequest, self._repository.load),
            "RepositoryModelUnload": typed(pb.RepositoryModelUnloadRequest, self._repository.unload),
            "SystemSharedMemoryStatus": typed(pb.SystemSharedMemoryStatusRequest, self.system_shared_memory),
            "CudaSharedMemoryStatus": typed(pb.CudaSharedMemoryStatusRequest, self.cuda_shared_memory),
        }
        for name in ("SystemSharedMemoryRegister", "CudaSharedMemoryRegister"):
            handlers[name] = Unary(_no_shared_memory)
        # There is nothing registered: unregistering all of it succeeds.
        handlers["SystemSharedMemoryUnregister"] = handlers["CudaSharedMemoryUnregister"] = Unary(_nothing)
        handlers["TraceSetting"] = handlers["LogSettings"] = Unary(_set_by_environment)
        return {f"/{SERVICE}/{name}": handler for name, handler in handlers.items()}

    async def server_live(self, call: Call, request: pb.ServerLiveRequest) -> pb.ServerLiveResponse:
        """The process is up."""
        return pb.ServerLiveResponse(live=True)

    async def server_ready(self, call: Call, request: pb.ServerReadyRequest) -> pb.ServerReadyResponse:
        """The routes are known and the backend could take a request."""
        return pb.ServerReadyResponse(ready=self._ready())

    async def model_ready(self, call: Call, request: pb.ModelReadyRequest) -> pb.ModelReadyResponse:
        """Somebody would run a request to this model. Raises NotFound."""
        route = self._resolve(call, request.name, request.version)
        return pb.ModelReadyResponse(ready=await self._backend.model_ready(route))

    async def server_metadata(self, call: Call, request: pb.ServerMetadataRequest) -> pb.ServerMetadataResponse:
        """Name, version and extensions."""
        return pb.ServerMetadataResponse(name="headrace", version=package_version("headrace"), extensions=EXTENSIONS)

    async def model_metadata(self, call: Call, request: pb.ModelMetadataRequest) -> pb.ModelMetadataResponse:
        """Inputs and outputs. Raises NotFound."""
        route = self._resolve(call, request.name, request.version)
        return model_metadata(route, self._routes.versions(request.name))

    async def model_config(self, call: Call, request: pb.ModelConfigRequest) -> pb.ModelConfigResponse:
        """Triton's view of the configuration. Raises NotFound."""
        route = self._resolve(call, request.name, request.version)
        return pb.ModelConfigResponse(config=model_config(route, self._routes.resolve))

    async def model_statistics(self, call: Call, request: pb.ModelStatisticsRequest) -> pb.ModelStatisticsResponse:
        """Of one version, of all versions of one model, or of everything. Raises NotFound."""
        routes: list[Route]
        if request.version:
            routes = [self._resolve(call, request.name, request.version)]
        elif request.name:
            check_use(call, request.name)
            routes = self._routes.versions(request.name)
        else:
            routes = [route for route in self._routes if may_use(call, route.name)]
        stats = [self._observer.stats(route).proto(route.name, route.version) for route in routes]
        return pb.ModelStatisticsResponse(model_stats=stats)

    def _resolve(self, call: Call, name: str, version: str) -> Route:
        """The route of a model that the caller may use. Raises PermissionDenied, NotFound."""
        check_use(call, name)
        return self._routes.resolve(name, version)

    async def system_shared_memory(
        self, call: Call, request: pb.SystemSharedMemoryStatusRequest
    ) -> pb.SystemSharedMemoryStatusResponse:
        """There is none."""
        if request.name:
            raise NotFound(f"no shared memory region '{request.name}'; shared memory is not offered")
        return pb.SystemSharedMemoryStatusResponse()

    async def cuda_shared_memory(
        self, call: Call, request: pb.CudaSharedMemoryStatusRequest
    ) -> pb.CudaSharedMemoryStatusResponse:
        """There is none."""
        if request.name:
            raise NotFound(f"no shared memory region '{request.name}'; shared memory is not offered")
        return pb.CudaSharedMemoryStatusResponse()


def model_infer(methods: MethodTable) -> UnaryHandler:
    """The handler of ModelInfer, for other faces of it."""
    method = methods[f"/{SERVICE}/ModelInfer"]
    assert isinstance(method, Unary)
    return method.handler


async def _no_shared_memory(call: Call, body: bytes) -> bytes:
    raise Unimplemented("shared memory is not offered: workers may be on other machines; send the contents")


async def _nothing(call: Call, body: bytes) -> bytes:
    return b""


async def _set_by_environment(call: Call, body: bytes) -> bytes:
    raise Unimplemented("set by the environment: HEADRACE_TRACES_PER_SECOND, HEADRACE_OTLP and HEADRACE_LOG_LEVEL")
