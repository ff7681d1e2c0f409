"""`RegistryClient`: pushing models, listing them, aliases, deletion."""

import hashlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc

from headrace.client.credentials import credentials, with_credentials
from headrace.client.errors import (
    DeadlineExceededError,
    FailedPreconditionError,
    InvalidArgumentError,
    from_rpc_error,
)
from headrace.client.tls import Tls, open_channel
from headrace.packages import PackageError, local_path, read_package
from headrace.v1 import registry_pb2 as pb
from headrace.v1.fleet_pb2 import LOAD_STATE_FAILED, LOAD_STATE_READY, HeldModel, ListWorkersRequest
from headrace.v1.fleet_pb2_grpc import FleetServiceStub
from headrace.v1.model_pb2 import Model, ModelFile, ModelVersion
from headrace.v1.registry_pb2_grpc import RegistryServiceStub
from headrace.v1.rollout_pb2 import PromoteRequest, RollbackRequest, Rollout, RolloutBounds
from headrace.v1.rollout_pb2_grpc import RolloutServiceStub

DEFAULT_ADDRESS = "127.0.0.1:8003"
CHUNK_BYTES = 1024 * 1024
WARM_POLL_SECONDS = 0.1
# How long a push waits for a collection of garbage that is about to take its blobs, and how often it asks.
SWEPT_SECONDS, SWEPT_POLL_SECONDS = 60.0, 0.25

Progress = Callable[[int, int], None]


class RegistryClient:
    """Blocking. All methods raise headrace.client.errors.HeadraceError.

    Args:
        api_key: a key of a tenant that may write, or a token; None: what HEADRACE_API_KEY holds, if anything.
        tls: None: as HEADRACE_TLS_* say, without a HEADRACE_TLS_CA in plain text.
    """

    def __init__(self, address: str = DEFAULT_ADDRESS, *, api_key: str | None = None, tls: Tls | None = None) -> None:
        self._channel = with_credentials(open_channel(address, tls), credentials(api_key))
        self._stub = RegistryServiceStub(self._channel)
        self._rollouts = RolloutServiceStub(self._channel)
        self._fleet = FleetServiceStub(self._channel)

    def push(self, name: str, path: Path | str, *, version: int = 0, progress: Progress | None = None) -> ModelVersion:
        """Publishes a .onnx file, a .pt2 archive, a folder or hf://org/name as the next version (or as `version`).

        Blobs that the store has are not sent again, so a push that broke off goes on where it was.

        Args:
            progress: called with (bytes done, bytes in all).

        Raises:
            InvalidArgumentError: the package is refused; the message says why.
        """
        try:
            package = read_package(local_path(path))
        except PackageError as error:
            raise InvalidArgumentError(str(error)) from error
        files = [
            ModelFile(path=relative, sha256=_sha256(file), size=file.stat().st_size)
            for relative, file in package.files.items()
        ]
        sources = {file.sha256: package.files[file.path] for file in files}
        request = pb.PublishVersionRequest(name=name, spec=package.spec, files=files, version=version)
        give_up_at = time.monotonic() + SWEPT_SECONDS
        while True:
            self._upload(sources, self._missing(sources), progress)
            try:
                published: ModelVersion = self._call(self._stub.PublishVersion, request).version
            except FailedPreconditionError:
                # Blobs of a deleted version may be swept between the two calls; then they are sent again.
                if time.monotonic() > give_up_at or not self._missing(sources):
                    raise
                time.sleep(SWEPT_POLL_SECONDS)
            else:
                return published

    def models(self) -> list[Model]:
        """Everything, by name."""
        return list(self._call(self._stub.ListModels, pb.ListModelsRequest()).models)

    def model(self, name: str) -> Model:
        """One model."""
        found: Model = self._call(self._stub.GetModel, pb.GetModelRequest(name=name)).model
        return found

    def set_alias(self, name: str, alias: str, version: int) -> None:
        """Points an alias at a version."""
        self._call(self._stub.SetAlias, pb.SetAliasRequest(name=name, alias=alias, version=version))

    def promote(
        self,
        name: str,
        version: int,
        *,
        weight: int = 100,
        shadow: bool = False,
        bounds: RolloutBounds | None = None,
        warm_seconds: float = 120.0,
        progress: Callable[[str], None] = lambda state: None,
    ) -> Rollout:
        """Moves callers who name no version (or "production") to a version, once a worker holds it.

        Args:
            weight: per cent of request keys that get the version; below 100 it is on trial beside the stable one.
            shadow: it gets copies of that share of the requests; its answers are compared and never returned.
            bounds: what it may do before the registry takes it back.
            warm_seconds: how long to wait for a worker that holds it; 0: do not wait.
            progress: called with what is waited for.

        Raises:
            HeadraceError: no such version; the version does not load, or not in time: then nothing has changed for
                callers, and the version stays on trial with a weight of 0.
        """
        wanted = PromoteRequest(name=name, version=version, weight=weight, shadow=shadow, bounds=bounds)
        wanted.expected_revision = -1
        known = self.model(name)
        if warm_seconds and known.aliases.get("production") != version and len(known.versions) > 1:
            warm = PromoteRequest(name=name, version=version, weight=0, bounds=bounds, expected_revision=-1)
            wanted.expected_revision = self._call(self._rollouts.Promote, warm).rollout.revision
            self._wait_until_warm(name, version, warm_seconds, progress)
        promoted: Rollout = self._call(self._rollouts.Promote, wanted).rollout
        return promoted

    def rollback(self, name: str, reason: str = "") -> Rollout:
        """Ends a trial; without one, goes back to the version that was stable before."""
        request = RollbackRequest(name=name, reason=reason, expected_revision=-1)
        back: Rollout = self._call(self._rollouts.Rollback, request).rollout
        return back

    def _wait_until_warm(self, name: str, version: int, seconds: float, progress: Callable[[str], None]) -> None:
        give_up_at = time.monotonic() + seconds
        while True:
            held = self._holders(name, version)
            if any(model.state == LOAD_STATE_READY for model in held):
                return
            failed = [model.reason for model in held if model.state == LOAD_STATE_FAILED]
            if failed and len(failed) == len(held):
                raise FailedPreconditionError(f"version {version} of '{name}' does not load: {failed[0]}")
            if time.monotonic() > give_up_at:
                raise DeadlineExceededError(
                    f"no worker held version {version} of '{name}' within {seconds:.0f} s; it stays on trial with a"
                    " weight of 0: look at `headrace status`, promote again, or end the trial with `headrace rollback`"
                )
            loaded = max((model.progress for model in held), default=0.0)
            progress(f"loading version {version}: {loaded:.0%}" if held else f"no worker has begun version {version}")
            time.sleep(WARM_POLL_SECONDS)

    def _holders(self, name: str, version: int) -> list[HeldModel]:
        workers = self._call(self._fleet.ListWorkers, ListWorkersRequest()).workers
        return [held for worker in workers for held in worker.models if (held.name, held.version) == (name, version)]

    def delete_alias(self, name: str, alias: str) -> None:
        """Removes an alias."""
        self._call(self._stub.DeleteAlias, pb.DeleteAliasRequest(name=name, alias=alias))

    def unload(self, name: str) -> None:
        """Takes a model out of service: what was accepted is answered, then workers give its memory back."""
        self._call(self._stub.SetUnloaded, pb.SetUnloadedRequest(name=name, unloaded=True))

    def load(self, name: str) -> None:
        """Brings an unloaded model back."""
        self._call(self._stub.SetUnloaded, pb.SetUnloadedRequest(name=name, unloaded=False))

    def delete_version(self, name: str, version: int) -> None:
        """Removes a version; its number is never used again."""
        self._call(self._stub.DeleteVersion, pb.DeleteVersionRequest(name=name, version=version))

    def delete_model(self, name: str) -> None:
        """Removes all versions."""
        self._call(self._stub.DeleteModel, pb.DeleteModelRequest(name=name))

    def collect_garbage(self, *, grace_seconds: int | None = None, dry_run: bool = False) -> pb.CollectGarbageResponse:
        """Removes blobs that no version uses, or tells what would be removed; safe beside pushes.

        Args:
            grace_seconds: younger ones stay, since their push may not be over; None: a day.

        Raises:
            FailedPreconditionError: a version's manifest is damaged; nothing was removed.
        """
        request = pb.CollectGarbageRequest(dry_run=dry_run, grace_seconds=grace_seconds)
        collected: pb.CollectGarbageResponse = self._call(self._stub.CollectGarbage, request)
        return collected

    def close(self) -> None:
        """Disconnects."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _missing(self, sources: dict[str, Path]) -> list[str]:
        return list(self._call(self._stub.FindMissingBlobs, pb.FindMissingBlobsRequest(sha256=list(sources))).sha256)

    def _upload(self, sources: dict[str, Path], missing: list[str], progress: Progress | None) -> None:
        done, total = 0, sum(sources[digest].stat().st_size for digest in missing)
        for digest in missing:
            self._call(self._stub.UploadBlob, _parts(digest, sources[digest], done, total, progress))
            done += sources[digest].stat().st_size

    def _call(self, method: Any, request: Any) -> Any:
        try:
            return method(request, timeout=600)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _parts(digest: str, path: Path, done: int, total: int, progress: Progress | None) -> Iterator[pb.UploadBlobRequest]:
    yield pb.UploadBlobRequest(header=pb.UploadBlobRequest.Header(sha256=digest, size=path.stat().st_size))
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield pb.UploadBlobRequest(chunk=chunk)
            done += len(chunk)
            if progress is not None:
                progress(done, total)
