"""Server reflection, v1 and v1alpha, as handlers over bytes: what grpcurl and its like ask first."""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import Any

from google.protobuf import text_format
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import Default
from google.protobuf.message import DecodeError
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.reflection_pb2 import (
    ErrorResponse,
    ExtensionNumberResponse,
    ExtensionRequest,
    FileDescriptorResponse,
    ListServiceResponse,
    ServerReflectionRequest,
    ServerReflectionResponse,
    ServiceResponse,
)

from services.common.errors import InvalidArgument
from services.gateway.calls import Call, MethodTable, Stream

# The two versions differ in their package's name only; their messages are the same on the wire.
_V1 = "grpc.reflection.v1"
_V1_FILE = "grpc/reflection/v1/reflection.proto"
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
        asked = request.WhichOneof("message_request")
        if asked == "list_services":
            names = [ServiceResponse(name=name) for name in self._services]
            return ServerReflectionResponse(list_services_response=ListServiceResponse(service=names))
        if asked is None:
            return _unknown("the request asks for nothing")
        try:
            return _LOOK_UPS[asked](getattr(request, asked))
        except KeyError as error:
            return _unknown(str(error))


def _unknown(why: str) -> ServerReflectionResponse:
    return ServerReflectionResponse(error_response=ErrorResponse(error_code=NOT_FOUND, error_message=why))


def _symbol(name: str) -> ServerReflectionResponse:
    if name.startswith(f"{_V1}."):
        return _file(_V1_FILE)
    return _files(Default().FindFileContainingSymbol(name))


def _extension(wanted: ExtensionRequest) -> ServerReflectionResponse:
    extended = Default().FindMessageTypeByName(wanted.containing_type)
    found = Default().FindExtensionByNumber(extended, wanted.extension_number)
    return _files(Default().FindFileContainingSymbol(found.full_name))


def _extensions(type_name: str) -> ServerReflectionResponse:
    found = Default().FindAllExtensions(Default().FindMessageTypeByName(type_name))
    numbers = ExtensionNumberResponse(
        base_type_name=type_name, extension_number=sorted(extension.number for extension in found)
    )
    return ServerReflectionResponse(all_extension_numbers_response=numbers)


def _file(name: str) -> ServerReflectionResponse:
    if name == _V1_FILE:
        response = FileDescriptorResponse(file_descriptor_proto=[_v1().SerializeToString()])
        return ServerReflectionResponse(file_descriptor_response=response)
    return _files(Default().FindFileByName(name))


def _v1() -> FileDescriptorProto:
    """The file of reflection's version 1, for which grpc has no stubs: version 1alpha under the other name."""
    proto = FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(proto)
    text = text_format.MessageToString(proto).replace(f"{_V1}alpha", _V1)
    renamed = text_format.Parse(text, FileDescriptorProto())
    renamed.name = _V1_FILE
    return renamed


def _files(file: FileDescriptor) -> ServerReflectionResponse:
    """The file and everything that it imports, itself first."""
    found: dict[str, FileDescriptor] = {}
    _collect(file, found)
    protos = []
    for each in found.values():
        proto = FileDescriptorProto()
        each.CopyToProto(proto)
        protos.append(proto.SerializeToString())
    return ServerReflectionResponse(file_descriptor_response=FileDescriptorResponse(file_descriptor_proto=protos))


def _collect(file: FileDescriptor, found: dict[str, FileDescriptor]) -> None:
    if file.name not in found:
        found[file.name] = file
        for dependency in file.dependencies:
            _collect(dependency, found)


# By the field of the request that is set.
_LOOK_UPS: Mapping[str, Callable[[Any], ServerReflectionResponse]] = {
    "file_by_filename": _file,
    "file_containing_symbol": _symbol,
    "file_containing_extension": _extension,
    "all_extension_numbers_of_type": _extensions,
}
