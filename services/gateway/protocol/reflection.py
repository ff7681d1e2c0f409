"""Server reflection, v1 and v1alpha, as handlers over bytes: what grpcurl and its like ask first."""

from collections.abc import AsyncIterator, Iterable, Iterator

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import Default
from google.protobuf.message import DecodeError
from grpc_reflection.v1alpha.reflection_pb2 import (
    ErrorResponse,
    FileDescriptorResponse,
    ListServiceResponse,
    ServerReflectionRequest,
    ServerReflectionResponse,
    ServiceResponse,
)

from services.common.errors import InvalidArgument
from services.gateway.calls import Call, MethodTable, Stream

# The two versions differ in their package's name only; their messages are the same on the wire.
SERVICES = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")
NOT_FOUND = 5


class Reflection:
    """Describes the services by name from the descriptors that their stubs registered."""

    def __init__(self, services: Iterable[str]) -> None:
        self._services = sorted(services)

    def methods(self) -> MethodTable:
        """Full method path → handler."""
        return {f"/{service}/ServerReflectionInfo": Stream(self.info) for service in SERVICES}

    async def info(self, call: Call, requests: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """One response for each request."""
        async for body in requests:
            try:
                request = ServerReflectionRequest.FromString(body)
            except DecodeError as error:
                raise InvalidArgument("the message is not a ServerReflectionRequest") from error
            response = self._answer(request)
            response.valid_host = request.host
            response.original_request.CopyFrom(request)
            yield response.SerializeToString()

    def _answer(self, request: ServerReflectionRequest) -> ServerReflectionResponse:
        pool = Default()
        try:
            match request.WhichOneof("message_request"):
                case "list_services":
                    names = [ServiceResponse(name=name) for name in self._services]
                    return ServerReflectionResponse(list_services_response=ListServiceResponse(service=names))
                case "file_by_filename":
                    return _files(pool.FindFileByName(request.file_by_filename))
                case "file_containing_symbol":
                    return _files(pool.FindFileContainingSymbol(request.file_containing_symbol))
                case _:
                    return _unknown("only list_services, file_by_filename and file_containing_symbol are answered")
        except KeyError as error:
            return _unknown(str(error))


def _unknown(why: str) -> ServerReflectionResponse:
    return ServerReflectionResponse(error_response=ErrorResponse(error_code=NOT_FOUND, error_message=why))


def _files(file: FileDescriptor) -> ServerReflectionResponse:
    """The file and everything that it imports, itself first."""
    seen: dict[str, bytes] = {}
    for found in _closure(file):
        proto = FileDescriptorProto()
        found.CopyToProto(proto)
        seen.setdefault(found.name, proto.SerializeToString())
    response = FileDescriptorResponse(file_descriptor_proto=list(seen.values()))
    return ServerReflectionResponse(file_descriptor_response=response)


def _closure(file: FileDescriptor) -> Iterator[FileDescriptor]:
    yield file
    for dependency in file.dependencies:
        yield from _closure(dependency)
