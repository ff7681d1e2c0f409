"""Models in an object store.

blobs/sha256/<digest>               the bytes, once each
models/<name>/versions/<00000001>   the manifest (JSON of ModelVersion), written last; emptied when deleted, so that
                                    its number is never used again
models/<name>/aliases/<alias>       the version number
"""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator

from google.protobuf.json_format import MessageToJson, Parse

from headrace.v1.model_pb2 import Model, ModelFile, ModelSpec, ModelVersion
from services.common.errors import AlreadyExists, Conflict, FailedPrecondition, InvalidArgument, NotFound
from services.common.objects.connect import one, whole
from services.common.objects.port import ObjectStore
from services.registry.rules import check_alias, check_files, check_name, check_spec, next_version

PUBLISH_TRIES = 50


class Catalog:
    """What is in the store, and how it changes.

    Publications of one process are serialised, which makes even a store without conditional writes safe for a single
    registry; with conditional writes any number of registries may publish.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._writing = asyncio.Lock()
        self._manifests: dict[tuple[str, str], bytes] = {}  # (key, etag) → content

    async def missing(self, digests: list[str]) -> list[str]:
        """Which blobs the store lacks."""
        return [digest for digest in digests if not await self._has(digest)]

    async def upload(self, digest: str, size: int, chunks: AsyncIterator[bytes]) -> None:
        """Stores a blob. A stream that does not hash to its name leaves nothing visible.

        Raises:
            InvalidArgument: digest or size do not match what came.
        """
        if await self._has(digest):
            async for _ in chunks:
                pass
            return
        await self._store.put(f"blobs/sha256/{digest}", _verified(chunks, digest, size))

    async def publish(self, name: str, spec: ModelSpec, files: list[ModelFile], asked: int) -> ModelVersion:
        """Makes a version visible.

        Raises:
            InvalidArgument: name, spec or files are malformed.
            FailedPrecondition: a blob is missing.
            AlreadyExists: the number that was asked for is taken.
            Conflict: other publishers were faster all the time.
        """
        check_name(name)
        check_spec(spec)
        check_files(files, spec.entry)
        if lacking := await self.missing([file.sha256 for file in files]):
            raise FailedPrecondition(f"{len(lacking)} blobs are not uploaded, the first is {lacking[0]}; upload, retry")
        async with self._writing:
            for _ in range(PUBLISH_TRIES):
                number = asked or next_version(await self._numbers(name))
                version = ModelVersion(
                    name=name, version=number, spec=spec, files=files, created_unix_ms=time.time_ns() // 1_000_000
                )
                try:
                    await self._write_manifest(version)
                except AlreadyExists:
                    if asked:
                        raise AlreadyExists(
                            f"version {asked} of '{name}' exists or existed; versions are immutable, leave the number"
                            " out to get the next one"
                        ) from None
                    continue
                return version
        raise Conflict(f"others published '{name}' faster {PUBLISH_TRIES} times in a row; try again")

    async def models(self) -> dict[str, Model]:
        """Everything, by name."""
        models: dict[str, Model] = {}
        async for info in self._store.list("models/"):
            _, name, kind, leaf = info.key.split("/", 3)
            model = models.setdefault(name, Model(name=name))
            if info.size == 0:
                continue
            content = await self._cached(info.key, info.etag)
            if content and kind == "versions":
                model.versions.append(Parse(content, ModelVersion()))
            elif content and kind == "aliases":
                model.aliases[leaf] = int(content)
        return {name: model for name, model in models.items() if model.versions}

    async def model(self, name: str) -> Model:
        """One model. Raises NotFound."""
        check_name(name)
        model = (await self.models()).get(name)
        if model is None:
            raise NotFound(f"no model '{name}'; `headrace models` lists what there is")
        return model

    async def set_alias(self, name: str, alias: str, number: int) -> None:
        """Points an alias at an existing version. Raises NotFound."""
        check_alias(alias)
        self._version(await self.model(name), number)
        await self._store.put(f"models/{name}/aliases/{alias}", one(str(number).encode()))

    async def delete_alias(self, name: str, alias: str) -> None:
        """Raises NotFound."""
        if alias not in (await self.model(name)).aliases:
            raise NotFound(f"model '{name}' has no alias '{alias}'")
        await self._store.delete(f"models/{name}/aliases/{alias}")

    async def delete_version(self, name: str, number: int) -> None:
        """Empties the manifest. Raises NotFound, FailedPrecondition where an alias points there."""
        model = await self.model(name)
        self._version(model, number)
        if aliases := [alias for alias, target in model.aliases.items() if target == number]:
            raise FailedPrecondition(f"version {number} of '{name}' is aliased by {', '.join(aliases)}; move it first")
        await self._store.put(_manifest_key(name, number), one(b""))

    async def delete_model(self, name: str) -> None:
        """All aliases and versions. Raises NotFound."""
        model = await self.model(name)
        for alias in model.aliases:
            await self._store.delete(f"models/{name}/aliases/{alias}")
        for version in model.versions:
            await self._store.put(_manifest_key(name, version.version), one(b""))

    async def locate(self, name: str, number: int, expires: float) -> list[tuple[ModelFile, str]]:
        """A version's files with URLs. Raises NotFound."""
        version = self._version(await self.model(name), number)
        return [(file, await self._store.url(f"blobs/sha256/{file.sha256}", expires)) for file in version.files]

    def _version(self, model: Model, number: int) -> ModelVersion:
        for version in model.versions:
            if version.version == number:
                return version
        known = ", ".join(str(version.version) for version in model.versions)
        raise NotFound(f"model '{model.name}' has no version {number}; there are: {known}")

    async def _numbers(self, name: str) -> list[int]:
        return [int(info.key.rsplit("/", 1)[1]) async for info in self._store.list(f"models/{name}/versions/")]

    async def _write_manifest(self, version: ModelVersion) -> None:
        key = _manifest_key(version.name, version.version)
        # Stores that ignore the condition are safe for one registry: nobody else writes, and this looks first.
        if version.version in await self._numbers(version.name):
            raise AlreadyExists(key)
        await self._store.put(key, one(MessageToJson(version).encode()), if_absent=True)

    async def _has(self, digest: str) -> bool:
        key = f"blobs/sha256/{digest}"
        return any([info.key == key async for info in self._store.list(key)])

    async def _cached(self, key: str, etag: str) -> bytes:
        content = self._manifests.get((key, etag))
        if content is None:
            try:
                content = await whole(self._store, key)
            except NotFound:  # deleted since it was listed
                return b""
            self._manifests[key, etag] = content
        return content


def _manifest_key(name: str, number: int) -> str:
    return f"models/{name}/versions/{number:08d}"


async def _verified(chunks: AsyncIterator[bytes], digest: str, size: int) -> AsyncIterator[bytes]:
    """Passes chunks on and raises at the end, before the object appears, if they are not what was announced."""
    hasher, seen = hashlib.sha256(), 0
    async for chunk in chunks:
        hasher.update(chunk)
        seen += len(chunk)
        if seen > size:
            break
        yield chunk
    if seen != size:
        raise InvalidArgument(f"blob {digest}: {size} bytes were announced, {seen} came; send it again")
    if hasher.hexdigest() != digest:
        raise InvalidArgument(f"blob {digest}: what came hashes to {hasher.hexdigest()}; send it again")
