"""Models in an object store.

blobs/sha256/<digest>               the bytes, once each; see blobs.py and collector.py
models/<name>/versions/<00000001>   the manifest (JSON of ModelVersion), written last; emptied when deleted, so that
                                    its number is never used again
models/<name>/aliases/<alias>       the version number, and a word that makes each of its writes another object
models/<name>/rollouts/<00000001>   JSON of Rollout: a chain of revisions, of which the last counts. Each is written
                                    if absent: of two who change the same one, one gets a Conflict
models/<name>/unloaded              there while nobody is to serve the model
changes/<number>-<token>            a change of the above under way; see changes.py
"""

import logging
import secrets
import time

from google.protobuf.json_format import MessageToJson, Parse, ParseError

from headrace.v1.model_pb2 import Model, ModelFile, ModelSpec, ModelVersion
from headrace.v1.rollout_pb2 import Rollout
from services.common.errors import AlreadyExists, FailedPrecondition, NotFound
from services.common.objects.connect import one, whole
from services.common.objects.port import ObjectInfo, ObjectStore
from services.registry import ensembles
from services.registry.blobs import Blobs
from services.registry.changes import Changes
from services.registry.rules import (
    check_alias,
    check_files,
    check_name,
    check_number,
    check_spec,
    next_version,
    parse_key,
)

log = logging.getLogger(__name__)

# What a rollout's versions are called.
STABLE, CANDIDATE = "production", "canary"

# A mark needs a byte: empty objects are deleted ones.
MARK = b"1"

Understood = ModelVersion | Rollout | int | None


class Catalog:
    """What is in the store, and how it changes; `blobs` are the files.

    Each change looks and writes while it has its turn among those of all registries (`changes`), and may find none:
    every method that changes something raises Conflict where others are at it all the time.
    """

    def __init__(self, store: ObjectStore, changes: Changes | None = None) -> None:
        self._store = store
        self.blobs = Blobs(store)
        self.changes = changes or Changes(store)
        self._read: dict[str, tuple[str, Understood]] = {}  # key → (etag, what it says)

    async def publish(self, name: str, spec: ModelSpec, files: list[ModelFile], asked: int) -> ModelVersion:
        """Makes a version visible.

        Raises:
            InvalidArgument: name, spec, files or number are malformed, or a blob has another size.
            NotFound: a step of an ensemble is not there.
            FailedPrecondition: a blob is missing or being swept, a step of an ensemble is unloaded, or an ensemble
                follows the latest version that this one would not fit.
            AlreadyExists: the number that was asked for is taken.
            Conflict: other registries were at it all the time.
            Unavailable: the store took so long that the blobs may have been swept meanwhile.
        """
        check_name(name)
        check_files(files, spec.entry)
        if asked:
            check_number(asked)
        if not spec.HasField("ensemble"):
            check_spec(spec)
        async with self.blobs.pinned(files) as pin, self.changes.turn() as change:
            models = await self.models()
            if spec.HasField("ensemble"):
                spec = ensembles.completed(name, spec, models)
                check_spec(spec)
            taken = await self._numbers(name)
            number = asked or next_version(taken)
            if number in taken:
                raise AlreadyExists(
                    f"version {number} of '{name}' exists or existed; versions are immutable, leave the number out to"
                    " get the next one"
                )
            version = ModelVersion(
                name=name, version=number, spec=spec, files=files, created_unix_ms=time.time_ns() // 1_000_000
            )
            self._check_latest(models, version)
            pin.check()
            content = one(MessageToJson(version).encode())
            await change.write(self._store.put(_manifest_key(name, number), content, if_absent=True))
            return version

    def _check_latest(self, models: dict[str, Model], version: ModelVersion) -> None:
        moved = Model(name=version.name)
        if version.name in models:
            moved.CopyFrom(models[version.name])
        moved.versions.append(version)
        ensembles.check_move(models, consistent(moved))

    async def models(self) -> dict[str, Model]:
        """Everything, by name."""
        listed = [info async for info in self._store.list("models/")]
        present = {info.key for info in listed}
        self._read = {key: held for key, held in self._read.items() if key in present}
        return await self._assemble(listed)

    async def model(self, name: str) -> Model:
        """One model. Raises NotFound."""
        check_name(name)
        model = (await self._assemble([info async for info in self._store.list(f"models/{name}/")])).get(name)
        if model is None:
            raise NotFound(f"no model '{name}'; `headrace models` lists what there is")
        return model

    async def set_alias(self, name: str, alias: str, number: int) -> None:
        """Points an alias at an existing version.

        Raises:
            NotFound: no such model or version.
            FailedPrecondition: a rollout moves the alias, or an ensemble follows it that the version does not fit.
        """
        check_alias(alias)
        async with self.changes.turn() as change:
            model = await self.model(name)
            version_of(model, number)
            if model.HasField("rollout") and alias in {STABLE, CANDIDATE}:
                raise FailedPrecondition(
                    f"'{alias}' of '{name}' is moved by its rollout; use headrace promote or headrace rollback"
                )
            model.aliases[alias] = number
            ensembles.check_move(await self.models(), model)
            # Some stores make tags of contents: a number that came back would bring its tag back, under which _read may
            # have what stood there in between.
            content = f"{number} {secrets.token_hex(8)}".encode()
            await change.write(self._store.put(f"models/{name}/aliases/{alias}", one(content)))

    async def delete_alias(self, name: str, alias: str) -> None:
        """Raises NotFound, FailedPrecondition where an ensemble follows it."""
        async with self.changes.turn() as change:
            aliases = (await self.model(name)).aliases
            if alias not in aliases:
                known = ", ".join(sorted(aliases)) or "none"
                raise NotFound(f"model '{name}' has no alias '{alias}'; there are: {known}")
            ensembles.check_unused(await self.models(), name, alias=alias)
            await change.write(self._store.delete(f"models/{name}/aliases/{alias}"))

    async def set_unloaded(self, name: str, unloaded: bool) -> None:
        """Whether anybody serves the model. Raises NotFound, FailedPrecondition where ensembles need it otherwise."""
        async with self.changes.turn() as change:
            model = await self.model(name)
            (ensembles.check_idle if unloaded else ensembles.check_members_loaded)(await self.models(), name)
            key = f"models/{name}/unloaded"
            if unloaded:
                await change.write(self._store.put(key, one(MARK)))
            elif model.unloaded:
                await change.write(self._store.delete(key))

    async def delete_version(self, name: str, number: int) -> None:
        """Empties the manifest. Raises NotFound, FailedPrecondition where an alias or an ensemble needs it."""
        async with self.changes.turn() as change:
            model = await self.model(name)
            version_of(model, number)
            if aliases := sorted(alias for alias, target in model.aliases.items() if target == number):
                raise FailedPrecondition(
                    f"version {number} of '{name}' is aliased by {', '.join(aliases)}; move the alias first"
                )
            ensembles.check_unused(await self.models(), name, number)
            await change.write(self._store.put(_manifest_key(name, number), one(b"")))

    async def delete_model(self, name: str) -> None:
        """All aliases and versions. Raises NotFound, FailedPrecondition where an ensemble needs one."""
        async with self.changes.turn() as change:
            model = await self.model(name)
            ensembles.check_unused(await self.models(), name)
            for alias in model.aliases:
                await change.write(self._store.delete(f"models/{name}/aliases/{alias}"))
            for version in model.versions:
                await change.write(self._store.put(_manifest_key(name, version.version), one(b"")))
            if model.unloaded:  # only now: nobody is to serve what is half gone
                await change.write(self._store.delete(f"models/{name}/unloaded"))
            for revision in [info.key async for info in self._store.list(f"models/{name}/rollouts/")]:
                await change.write(self._store.delete(revision))

    async def locate(self, name: str, number: int, expires: float) -> list[tuple[ModelFile, str]]:
        """A version's files with URLs. Raises NotFound."""
        version = version_of(await self.model(name), number)
        return [(file, await self.blobs.url(file.sha256, expires)) for file in version.files]

    async def _numbers(self, name: str) -> list[int]:
        keys = [parse_key(info.key) async for info in self._store.list(f"models/{name}/versions/")]
        return [key.number for key in keys if key is not None]

    async def _assemble(self, listed: list[ObjectInfo]) -> dict[str, Model]:
        """Models from what was listed. Whatever is not ours is passed over: others may keep things in the bucket."""
        models: dict[str, Model] = {}
        for info in listed:
            key = parse_key(info.key)
            if key is None or info.size == 0:  # deleted versions are empty
                continue
            model = models.setdefault(key.model, Model(name=key.model))
            if key.unloaded:
                model.unloaded = True
                continue
            match await self._understood(info):
                case ModelVersion() as version:
                    model.versions.append(version)
                case Rollout() as rollout:  # listed in order: the last one stays
                    model.rollout.CopyFrom(rollout)
                case int(number):
                    model.aliases[key.alias] = number
        return {name: consistent(model) for name, model in models.items() if model.versions}

    async def _understood(self, info: ObjectInfo) -> Understood:
        """What a version or an alias says, read again only when its tag has changed; None where it is damaged."""
        etag, understood = self._read.get(info.key, ("", None))
        if etag != info.etag:
            try:
                understood = _parse(info.key, await whole(self._store, info.key))
            except NotFound:  # deleted since it was listed
                return None
            self._read[info.key] = (info.etag, understood)
        return understood


def version_of(model: Model, number: int) -> ModelVersion:
    """One of the model's versions. Raises NotFound."""
    for version in model.versions:
        if version.version == number:
            return version
    known = ", ".join(str(version.version) for version in model.versions)
    raise NotFound(f"model '{model.name}' has no version {number}; there are: {known}")


def _parse(key: str, content: bytes) -> Understood:
    found = parse_key(key)
    try:
        if found is None or not content:
            return None
        if found.alias:
            return int(content.split()[0])
        return Parse(content, Rollout() if found.revision else ModelVersion(), ignore_unknown_fields=True)
    except (ParseError, ValueError) as error:
        log.warning("the object %s is damaged and is passed over: %s", key, error)
        return None


def consistent(model: Model) -> Model:
    """Versions in order, no alias that points nowhere: another registry may be deleting just now."""
    model.versions.sort(key=lambda version: version.version)
    numbers = {version.version for version in model.versions}
    for alias in [alias for alias, number in model.aliases.items() if number not in numbers]:
        del model.aliases[alias]
    if model.HasField("rollout"):
        if model.rollout.stable not in numbers:
            model.ClearField("rollout")
            return model
        model.aliases.pop(CANDIDATE, None)
        model.aliases[STABLE] = model.rollout.stable
        if model.rollout.candidate in numbers:
            model.aliases[CANDIDATE] = model.rollout.candidate
    return model


def _manifest_key(name: str, number: int) -> str:
    return f"models/{name}/versions/{number:08d}"
