"""RegistryService and FleetService over the catalogue."""

from collections.abc import AsyncIterator
from typing import Any

from headrace.v1 import registry_pb2 as pb
from headrace.v1.registry_pb2_grpc import RegistryServiceServicer
from services.common.errors import InvalidArgument
from services.registry.catalog import Catalog
from services.registry.collector import GRACE_SECONDS, Collector
from services.registry.rules import check_digest
from services.registry.watching import Watchers

URL_SECONDS = 3600.0


class RegistryServer(RegistryServiceServicer):
    """Implements RegistryService; what it writes, its own watchers see before the call returns."""

    def __init__(self, catalog: Catalog, watchers: Watchers, collector: Collector) -> None:
        self._catalog = catalog
        self._watchers = watchers
        self._collector = collector

    async def FindMissingBlobs(self, request: pb.FindMissingBlobsRequest, context: Any) -> pb.FindMissingBlobsResponse:
        """Which blobs to upload."""
        for digest in request.sha256:
            check_digest(digest)
        return pb.FindMissingBlobsResponse(sha256=await self._catalog.blobs.missing(list(request.sha256)))

    async def UploadBlob(
        self, request_iterator: AsyncIterator[pb.UploadBlobRequest], context: Any
    ) -> pb.UploadBlobResponse:
        """Header, then chunks."""
        first = await anext(request_iterator, pb.UploadBlobRequest())
        if first.WhichOneof("part") != "header":
            raise InvalidArgument("the first message of an upload must be its header, with sha256 and size")
        check_digest(first.header.sha256)

        async def chunks() -> AsyncIterator[bytes]:
            async for message in request_iterator:
                if message.WhichOneof("part") != "chunk":
                    raise InvalidArgument("after the header, every message of an upload must be a chunk of bytes")
                yield message.chunk

        await self._catalog.blobs.upload(first.header.sha256, first.header.size, chunks())
        return pb.UploadBlobResponse()

    async def PublishVersion(self, request: pb.PublishVersionRequest, context: Any) -> pb.PublishVersionResponse:
        """All or nothing."""
        version = await self._catalog.publish(request.name, request.spec, list(request.files), request.version)
        await self._watchers.tell()
        return pb.PublishVersionResponse(version=version)

    async def ListModels(self, request: pb.ListModelsRequest, context: Any) -> pb.ListModelsResponse:
        """By name."""
        models = await self._catalog.models()
        return pb.ListModelsResponse(models=[models[name] for name in sorted(models)])

    async def GetModel(self, request: pb.GetModelRequest, context: Any) -> pb.GetModelResponse:
        """One model."""
        return pb.GetModelResponse(model=await self._catalog.model(request.name))

    async def SetAlias(self, request: pb.SetAliasRequest, context: Any) -> pb.SetAliasResponse:
        """Points an alias at a version."""
        await self._catalog.set_alias(request.name, request.alias, request.version)
        await self._watchers.tell()
        return pb.SetAliasResponse()

    async def DeleteAlias(self, request: pb.DeleteAliasRequest, context: Any) -> pb.DeleteAliasResponse:
        """Removes an alias."""
        await self._catalog.delete_alias(request.name, request.alias)
        await self._watchers.tell()
        return pb.DeleteAliasResponse()

    async def SetUnloaded(self, request: pb.SetUnloadedRequest, context: Any) -> pb.SetUnloadedResponse:
        """Takes a model out of service, or back into it."""
        await self._catalog.set_unloaded(request.name, request.unloaded)
        await self._watchers.tell()
        return pb.SetUnloadedResponse()

    async def DeleteVersion(self, request: pb.DeleteVersionRequest, context: Any) -> pb.DeleteVersionResponse:
        """Removes a version; its number is never used again."""
        await self._catalog.delete_version(request.name, request.version)
        await self._watchers.tell()
        return pb.DeleteVersionResponse()

    async def DeleteModel(self, request: pb.DeleteModelRequest, context: Any) -> pb.DeleteModelResponse:
        """Removes all versions and aliases."""
        await self._catalog.delete_model(request.name)
        await self._watchers.tell()
        return pb.DeleteModelResponse()

    async def LocateFiles(self, request: pb.LocateFilesRequest, context: Any) -> pb.LocateFilesResponse:
        """URLs of a version's files."""
        response = pb.LocateFilesResponse()
        for file, url in await self._catalog.locate(request.name, request.version, URL_SECONDS):
            response.locations.add(file=file, url=url)
        return response

    async def CollectGarbage(self, request: pb.CollectGarbageRequest, context: Any) -> pb.CollectGarbageResponse:
        """Removes blobs that no version uses."""
        grace = request.grace_seconds if request.HasField("grace_seconds") else GRACE_SECONDS
        found = await self._collector.collect(grace, dry_run=request.dry_run)
        blobs = [pb.CollectGarbageResponse.Blob(sha256=blob.digest, size=blob.size) for blob in found.collected]
        return pb.CollectGarbageResponse(collected=blobs, used=found.used, young=found.young, left=found.left)

    async def WatchModels(self, request: pb.WatchModelsRequest, context: Any) -> AsyncIterator[pb.WatchModelsResponse]:
        """Everything, `synced`, then changes."""
        async for event in self._watchers.watch():
            yield event
