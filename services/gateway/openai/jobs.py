"""The job service, as the endpoints for files and batches ask it."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
from fastapi import Request
from fastapi.responses import StreamingResponse
from grpc import aio
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from headrace.v1.jobs_pb2_grpc import FileServiceStub, JobServiceStub
from services.common.errors import Unimplemented
from services.common.rpc import channel, from_rpc_error
from services.common.tls import Tls
from services.gateway.calls import credentials

if TYPE_CHECKING:
    from headrace.v1.jobs_pb2_grpc import FileServiceAsyncStub, JobServiceAsyncStub

# A batch of an uploaded file is read, checked and kept before it is answered.
CALL_SECONDS = 300.0
HEALTH_SECONDS = 1.0


class Jobs:
    """Stubs of the job service; what goes wrong there is raised as a HeadraceError."""

    def __init__(self, connection: aio.Channel) -> None:
        self.jobs: JobServiceAsyncStub = JobServiceStub(connection)
        self.files: FileServiceAsyncStub = FileServiceStub(connection)
        self._health: Any = HealthStub(connection)

    async def up(self) -> bool:
        """Whether it answers now."""
        try:
            answer = await self._health.Check(HealthCheckRequest(), timeout=HEALTH_SECONDS)
        except grpc.RpcError:
            return False
        return bool(answer.status == HealthCheckResponse.SERVING)

    async def ask(self, http: Request, method: Any, request: Any, seconds: float = CALL_SECONDS) -> Any:
        """One answer to a request, or to a stream of them, on behalf of an HTTP caller."""
        try:
            return await method(request, timeout=seconds, metadata=credentials(http.headers))
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error

    async def download(self, http: Request, method: Any, request: Any, media_type: str) -> StreamingResponse:
        """The `content` of a stream of answers, as a response; what is wrong with the request is raised at once."""
        pieces = self._pieces(http, method, request)
        first = await anext(pieces, b"")
        return StreamingResponse(_after(first, pieces), media_type=media_type)

    async def _pieces(self, http: Request, method: Any, request: Any) -> AsyncGenerator[bytes, None]:
        try:
            async for answer in method(request, metadata=credentials(http.headers)):
                yield answer.content
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error


async def _after(first: bytes, pieces: AsyncGenerator[bytes, None]) -> AsyncIterator[bytes]:
    async with aclosing(pieces):
        yield first
        async for piece in pieces:
            yield piece


@asynccontextmanager
async def jobs_behind(address: str, tls: Tls | None) -> AsyncIterator[Jobs | None]:
    """The job service at host:port; None where there is none."""
    if not address:
        yield None
        return
    async with channel(address, tls) as connection:
        yield Jobs(connection)


def there(jobs: Jobs | None) -> Jobs:
    """Raises Unimplemented."""
    if jobs is None:
        raise Unimplemented("this gateway knows no job service; start one and set HEADRACE_JOBS to its host:port")
    return jobs
