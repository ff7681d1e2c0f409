"""FileService over the store."""

from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Any

from headrace.v1 import jobs_pb2 as pb
from headrace.v1.jobs_pb2_grpc import FileServiceServicer
from services.jobs.door import Door, owner_of
from services.jobs.files import FileInfo, FileStore
from services.jobs.paging import page
from services.jobs.uploads import content_of, first_part

DEFAULT_PAGE, MOST_IN_PAGE = 100, 10_000


class FileServer(FileServiceServicer):
    """Implements FileService."""

    def __init__(self, files: FileStore, door: Door) -> None:
        self._files = files
        self._door = door

    async def CreateFile(self, requests: AsyncIterator[pb.CreateFileRequest], context: Any) -> pb.CreateFileResponse:
        """In pieces."""
        header = (await first_part(requests)).header
        owner = owner_of(self._door.caller(context))
        info = await self._files.create(header.filename, header.purpose, content_of(requests), owner)
        return pb.CreateFileResponse(file=_file(info))

    async def GetFile(self, request: pb.GetFileRequest, context: Any) -> pb.GetFileResponse:
        """What is known of it."""
        await self._files.check(request.id, self._door.caller(context))
        return pb.GetFileResponse(file=_file(await self._files.info(request.id)))

    async def ListFiles(self, request: pb.ListFilesRequest, context: Any) -> pb.ListFilesResponse:
        """Newest first."""
        limit = min(request.limit or DEFAULT_PAGE, MOST_IN_PAGE)
        ids, more = page(await self._files.ids(self._door.caller(context)), limit, request.after)
        return pb.ListFilesResponse(files=[_file(await self._files.info(name)) for name in ids], has_more=more)

    async def DeleteFile(self, request: pb.DeleteFileRequest, context: Any) -> pb.DeleteFileResponse:
        """Jobs that were made of it go on: they have copies of their requests."""
        await self._files.check(request.id, self._door.caller(context))
        await self._files.delete(request.id)
        return pb.DeleteFileResponse()

    async def ReadFile(self, request: pb.ReadFileRequest, context: Any) -> AsyncIterator[pb.ReadFileResponse]:
        """In pieces."""
        await self._files.check(request.id, self._door.caller(context))
        async for content in self._files.content(request.id):
            yield pb.ReadFileResponse(content=content)


def _file(info: FileInfo) -> pb.File:
    said = asdict(info)
    del said["tenant"]
    return pb.File(created_unix_ms=said.pop("created_ms"), **said)
