"""Which model a single replica serves: a package on this machine, or a version in the registry."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

import grpc
from grpc import aio

from headrace.packages import PackageError, read_package
from headrace.v1.model_pb2 import ModelVersion
from headrace.v1.registry_pb2 import GetModelRequest, ListModelsRequest
from headrace.v1.registry_pb2_grpc import RegistryServiceStub
from services.common.ensembles import check_fit, found_in
from services.common.errors import InvalidArgument, NotFound, Unavailable
from services.common.rpc import channel, from_rpc_error
from services.common.tls import Tls
from services.gateway.routes import Routes
from services.worker.cache import ArtifactCache

_ENDINGS = {".onnx", ".pt2"}


@dataclass(frozen=True, slots=True)
class Found:
    """A version and the folder where its files are; of an ensemble also the model of each step, in order."""

    folder: Path
    version: ModelVersion
    members: tuple["Found", ...] = ()


async def find(model: str, registry: str, cache: Path, tls: Tls | None = None) -> Found:
    """The model's files and description.

    Args:
        model: a package's path, or NAME or NAME:VERSION (a number or an alias).
        registry: its host:port; asked only where there is nothing at the path.

    Raises:
        InvalidArgument: what is at the path is no package, or an ensemble, whose models only the registry knows; the
            models that an ensemble's steps name now do not fit it.
        NotFound: neither here nor in the registry.
        Unavailable: not here, and the registry cannot be reached.
    """
    if not model:
        raise InvalidArgument("no model is named; give a package's path, or NAME or NAME:VERSION in the registry")
    return _from_path(Path(model)) or await _from_registry(model, registry, cache, tls)


def _from_path(path: Path) -> Found | None:
    """A package on this machine; None if there is nothing, and what is said may be a name."""
    if not path.exists():
        if path.suffix in _ENDINGS or "/" in str(path):
            raise NotFound(f"there is no file or folder '{path}'")
        return None
    try:
        package = read_package(path)
    except PackageError as error:
        raise InvalidArgument(str(error)) from error
    name = path.stem if path.is_file() else path.resolve().name
    if package.spec.HasField("ensemble"):
        raise InvalidArgument(
            f"'{path}' is an ensemble, whose models are in a registry: `headrace push {name} {path}`, then"
            f" `headrace serve {name}`"
        )
    return Found(path if path.is_dir() else path.parent, ModelVersion(name=name, version=1, spec=package.spec))


async def _from_registry(model: str, address: str, cache: Path, tls: Tls | None) -> Found:
    name, _, wanted = model.partition(":")
    async with channel(address, tls) as registry:
        try:
            response = await RegistryServiceStub(registry).GetModel(GetModelRequest(name=name), timeout=10)
        except grpc.RpcError as error:
            reason = from_rpc_error(error)
            if isinstance(reason, Unavailable):
                raise Unavailable(
                    f"'{model}' is no file or folder here, and there is no registry at {address}: start it with"
                    " `headrace up`, or say where it is with --registry"
                ) from error
            raise NotFound(f"'{model}' is no file or folder here, and the registry says: {reason}") from error
        routes = Routes()
        routes.update(response.model)
        version = routes.resolve(name, wanted).spec_version
        files = ArtifactCache(cache, registry, tls)
        return Found(await files.folder(version), version, await _members(version, registry, files))


async def _members(version: ModelVersion, registry: aio.Channel, files: ArtifactCache) -> tuple[Found, ...]:
    """The models of an ensemble's steps, as they are named now; of other models: none."""
    if not version.spec.HasField("ensemble"):
        return ()
    try:
        response = await RegistryServiceStub(registry).ListModels(ListModelsRequest(), timeout=10)
    except grpc.RpcError as error:
        raise from_rpc_error(error) from error
    models = {model.name: model for model in response.models}
    check_fit(version.spec, lambda step: found_in(models, step))
    versions = [found_in(models, step) for step in version.spec.ensemble.steps]
    folders = await asyncio.gather(*(files.folder(member) for member in versions))
    return tuple(Found(folder, member) for folder, member in zip(folders, versions, strict=True))
