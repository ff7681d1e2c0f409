"""The local copy of models' files: fetched once, verified always before it is used."""

import asyncio
import hashlib
import os
import secrets
import ssl
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path

import grpc
from grpc import aio

from headrace.v1.model_pb2 import ModelFile, ModelVersion
from headrace.v1.registry_pb2 import LocateFilesRequest
from headrace.v1.registry_pb2_grpc import RegistryServiceStub
from services.common.errors import FailedPrecondition, Unavailable
from services.common.rpc import from_rpc_error
from services.common.tls import Tls

CHUNK_BYTES = 1024 * 1024

Progress = Callable[[int, int], None]


def _unwatched(done: int, total: int) -> None:
    """Nobody wants to know."""


class ArtifactCache:
    """A folder of versions' files; any number of workers on a machine may share it.

    Args:
        tls: knows the issuers of the store's certificate; without them the system's are believed.
    """

    def __init__(self, root: Path, registry: aio.Channel, tls: Tls | None = None) -> None:
        self._root = root
        self._tls = tls
        self._registry = RegistryServiceStub(registry)

    async def folder(self, version: ModelVersion, progress: Progress = _unwatched) -> Path:
        """A folder with all files of the version, each of the right digest.

        Args:
            progress: called with (bytes here, bytes in all) as files arrive; on the event loop.

        Raises:
            NotFound: the registry does not know the version.
            FailedPrecondition: a file's path leads out of the folder.
            Unavailable: registry or store do not answer, or what came is not what was published.
        """
        folder = self._root / version.name / str(version.version)
        inside = folder.resolve()
        for file in version.files:
            if not (inside / file.path).resolve().is_relative_to(inside):
                raise FailedPrecondition(f"file '{file.path}' would lie outside its version's folder; publish it anew")
        missing = [file for file in version.files if not await asyncio.to_thread(_is, folder / file.path, file)]
        if not missing:
            return folder
        try:
            located = await self._registry.LocateFiles(
                LocateFilesRequest(name=version.name, version=version.version), timeout=10
            )
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error
        urls = {location.file.path: location.url for location in located.locations}
        total, loop = sum(file.size for file in version.files), asyncio.get_running_loop()
        done = total - sum(file.size for file in missing)

        def arrived(size: int) -> None:
            nonlocal done
            done += size
            loop.call_soon_threadsafe(progress, done, total)

        for file in missing:
            url = urls.get(file.path, "")
            await asyncio.to_thread(fetch, url, folder / file.path, file, arrived, self._tls)
        return folder


def _is(path: Path, file: ModelFile) -> bool:
    if not path.is_file() or path.stat().st_size != file.size:
        return False
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest() == file.sha256


def fetch(url: str, target: Path, file: ModelFile, arrived: Callable[[int], None], tls: Tls | None = None) -> None:
    """Downloads beside and renames into place, if the digest is right.

    Args:
        tls: as ArtifactCache has it.

    Raises:
        Unavailable: it cannot be had, or is not what was published.
    """
    if not url.startswith(("http://", "https://", "file://")):
        raise Unavailable(f"the registry gave no usable URL for '{file.path}': {url!r}")
    issuers = tls.now.store_context() if tls and url.startswith("https:") else None
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        with urllib.request.urlopen(url, timeout=60, context=issuers) as source, partial.open("wb") as copy:
            while chunk := source.read(CHUNK_BYTES):
                copy.write(chunk)
                arrived(len(chunk))
        if not _is(partial, file):
            raise Unavailable(f"'{file.path}' from the store is not what was published: its SHA-256 differs")
        partial.replace(target)
    except (OSError, HTTPException) as error:
        raise Unavailable(
            f"cannot fetch '{file.path}' from the store into {target.parent}: {error}{_advice(error)}"
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def _advice(error: Exception) -> str:
    """What to do where the store's certificate was refused; else nothing."""
    if not isinstance(getattr(error, "reason", None), ssl.SSLCertVerificationError):
        return ""
    return "; HEADRACE_TLS_STORE_CA names the file with its issuers (PEM), and the endpoint's host must be in it"
