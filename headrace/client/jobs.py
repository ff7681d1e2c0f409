"""`JobsClient`: files of requests that are run when there is room."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc

from headrace.client.credentials import credentials, with_credentials
from headrace.client.errors import UnavailableError, from_rpc_error
from headrace.client.tls import Tls, open_channel
from headrace.v1 import jobs_pb2 as pb
from headrace.v1.jobs_pb2_grpc import JobServiceStub

DEFAULT_ADDRESS = "127.0.0.1:8006"
PIECE_BYTES = 1024 * 1024
CALL_SECONDS = 30.0
ENDED = {pb.JOB_STATE_COMPLETED, pb.JOB_STATE_CANCELLED, pb.JOB_STATE_EXPIRED}


class JobsClient:
    """Blocking. All methods raise headrace.client.errors.HeadraceError.

    Args:
        api_key: a key of a tenant that may write, or a token; None: what HEADRACE_API_KEY holds, if anything.
        tls: None: as HEADRACE_TLS_* say, without a HEADRACE_TLS_CA in plain text.
    """

    def __init__(self, address: str = DEFAULT_ADDRESS, *, api_key: str | None = None, tls: Tls | None = None) -> None:
        self._channel = open_channel(address, tls, [("grpc.max_receive_message_length", -1)])
        self._stub = JobServiceStub(with_credentials(self._channel, credentials(api_key)))

    def submit(
        self,
        content: Path | Iterable[bytes],
        *,
        endpoint: str = "",
        metadata: Mapping[str, str] | None = None,
        window_seconds: int = 0,
    ) -> pb.Job:
        """Hands a job over; once this returns it is kept, whatever dies.

        Args:
            content: a file of JSON lines, or its bytes, cut anywhere.
            endpoint: for lines that are bodies only, such as "/v2/models/digits/infer".
            window_seconds: how long it may take; 0: a day.

        Raises:
            InvalidArgumentError: a line is wrong; the message says which. Nothing is kept.
        """
        header = pb.SubmitJobRequest.Header(endpoint=endpoint, metadata=metadata, window_seconds=window_seconds)
        pieces = _pieces(content) if isinstance(content, Path) else content
        requests = chain(
            [pb.SubmitJobRequest(header=header)],
            (pb.SubmitJobRequest(content=piece) for piece in pieces),
            [pb.SubmitJobRequest(complete=True)],
        )
        submitted: pb.Job = self._call(self._stub.SubmitJob, requests, None).job
        return submitted

    def get(self, job: str) -> pb.Job:
        """Where it stands."""
        found: pb.Job = self._call(self._stub.GetJob, pb.GetJobRequest(id=job)).job
        return found

    def watch(self, job: str) -> Iterator[pb.Job]:
        """The job as it is, then each time that it got on, until it has ended."""
        for response in self._stream(self._stub.WatchJob, pb.WatchJobRequest(id=job)):
            yield response.job

    def list(self, limit: int = 20, after: str = "") -> "list[pb.Job]":
        """Newest first; `after` is the last id of the page before."""
        return list(self._call(self._stub.ListJobs, pb.ListJobsRequest(limit=limit, after=after)).jobs)

    def cancel(self, job: str) -> pb.Job:
        """What is not answered is given up; results so far are kept."""
        cancelled: pb.Job = self._call(self._stub.CancelJob, pb.CancelJobRequest(id=job)).job
        return cancelled

    def delete(self, job: str) -> None:
        """Removes a job that has ended, with its results."""
        self._call(self._stub.DeleteJob, pb.DeleteJobRequest(id=job))

    def results(self, job: str, kind: "pb.ResultKind.ValueType" = pb.RESULT_KIND_UNSPECIFIED) -> Iterator[bytes]:
        """Results so far as JSON lines, in pieces that end with a line."""
        for response in self._stream(self._stub.ReadResults, pb.ReadResultsRequest(id=job, kind=kind)):
            yield response.content

    def wait(self, seconds: float = 60.0) -> None:
        """Until the job service is there. Raises UnavailableError."""
        try:
            grpc.channel_ready_future(self._channel).result(seconds)
        except grpc.FutureTimeoutError as error:
            raise UnavailableError(f"no job service within {seconds:.0f} s") from error

    def close(self) -> None:
        """Disconnects."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _call(self, method: Any, request: Any, timeout: float | None = CALL_SECONDS) -> Any:
        try:
            return method(request, timeout=timeout)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error

    def _stream(self, method: Any, request: Any) -> Iterator[Any]:
        try:
            yield from method(request)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            yield piece
