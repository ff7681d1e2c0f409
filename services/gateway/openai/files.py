"""/v1/files: what batches are made of, and what comes of them."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Form, Request, Response, UploadFile

from headrace.v1 import jobs_pb2 as pb
from services.gateway.openai.jobs import Jobs, there

PIECE_BYTES = 1024 * 1024


def files_router(jobs: Jobs | None) -> APIRouter:
    """The endpoints over the job service's files."""
    router = APIRouter(prefix="/v1/files", tags=["openai"])

    @router.post("")
    async def create(http: Request, file: UploadFile, purpose: Annotated[str, Form()]) -> dict[str, Any]:
        """Keeps a file; its purpose must be `batch`."""
        service, name = there(jobs), file.filename or "upload.jsonl"
        made = await service.ask(http, service.files.CreateFile, _parts(file, name, purpose))
        return _file(made.file)

    @router.get("")
    async def files(http: Request, limit: int = 0, after: str = "", purpose: str = "") -> dict[str, Any]:
        """Uploaded files, newest first."""
        service = there(jobs)
        asked = pb.ListFilesRequest(limit=max(0, limit), after=after)
        page = await service.ask(http, service.files.ListFiles, asked)
        data = [_file(file) for file in page.files if purpose in {"", file.purpose}]
        ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {}
        return {"object": "list", "data": data, "has_more": page.has_more, **ends}

    @router.get("/{name}")
    async def file_info(name: str, http: Request) -> dict[str, Any]:
        """What is known of a file."""
        service = there(jobs)
        return _file((await service.ask(http, service.files.GetFile, pb.GetFileRequest(id=name))).file)

    @router.get("/{name}/content")
    async def content(name: str, http: Request) -> Response:
        """Its bytes."""
        service = there(jobs)
        asked = pb.ReadFileRequest(id=name)
        return await service.download(http, service.files.ReadFile, asked, "application/octet-stream")

    @router.delete("/{name}")
    async def delete(name: str, http: Request) -> dict[str, Any]:
        """Removes an upload; batches that were made of it have their own copies."""
        service = there(jobs)
        await service.ask(http, service.files.DeleteFile, pb.DeleteFileRequest(id=name))
        return {"id": name, "object": "file", "deleted": True}

    return router


async def _parts(file: UploadFile, name: str, purpose: str) -> AsyncIterator[pb.CreateFileRequest]:
    yield pb.CreateFileRequest(header=pb.CreateFileRequest.Header(filename=name, purpose=purpose))
    while piece := await file.read(PIECE_BYTES):
        yield pb.CreateFileRequest(content=piece)
    yield pb.CreateFileRequest(complete=True)


def _file(file: pb.File) -> dict[str, Any]:
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.bytes,
        "created_at": file.created_unix_ms // 1000,
        "filename": file.filename,
        "purpose": file.purpose,
        "status": "processed",
    }
