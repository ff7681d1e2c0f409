"""Rollouts in the object store: a chain of revisions for each model, and the compare-and-set that makes it one."""

import time

from google.protobuf.json_format import MessageToJson

from headrace.v1.model_pb2 import Model
from headrace.v1.rollout_pb2 import PromoteRequest, Rollout
from services.common.errors import AlreadyExists, Conflict, FailedPrecondition
from services.common.objects.connect import one
from services.common.objects.port import ObjectStore
from services.registry.catalog import Catalog, consistent, version_of
from services.registry.changes import Change
from services.registry.ensembles import check_move
from services.registry.rollouts import promoted, rolled_back

# The history that is kept of each rollout.
REVISIONS_KEPT = 20


class RolloutChain:
    """Writes the next revision of a model's rollout; the catalogue reads the last."""

    def __init__(self, catalog: Catalog, store: ObjectStore) -> None:
        self._catalog = catalog
        self._store = store

    async def promote(self, wanted: PromoteRequest) -> Rollout:
        """Makes a version stable, or puts it on trial.

        Raises:
            NotFound: no such model or version.
            Conflict: the rollout is not at the revision that was expected, or somebody else wrote first.
            InvalidArgument, FailedPrecondition: see rollouts.promoted; or an ensemble follows that would not fit.
        """
        async with self._catalog.changes.turn() as change:
            model = await self._catalog.model(wanted.name)
            version_of(model, wanted.version)
            numbers = [version.version for version in model.versions]
            current = _current(model, wanted.expected_revision)
            made = promoted(current, wanted, numbers, _now_ms())
            await self._check_ensembles(model, made)
            return await self._write(change, wanted.name, made)

    async def roll_back(self, name: str, reason: str, expected: int) -> Rollout:
        """Goes back to what was before. Raises NotFound, Conflict, FailedPrecondition.

        An ensemble that the version before does not fit is no reason to stay with a bad one: it goes on with what it
        has, and the revision's reason says so.
        """
        async with self._catalog.changes.turn() as change:
            model = await self._catalog.model(name)
            made = rolled_back(_current(model, expected), reason, _now_ms())
            version_of(model, made.stable)
            try:
                await self._check_ensembles(model, made)
            except FailedPrecondition as error:
                made.reason += f"; {error}"
            return await self._write(change, name, made)

    async def _check_ensembles(self, model: Model, rollout: Rollout) -> None:
        model.rollout.CopyFrom(rollout)
        check_move(await self._catalog.models(), consistent(model))

    async def _write(self, change: Change, name: str, rollout: Rollout) -> Rollout:
        """Adds the revision and drops the oldest. Raises Conflict where it exists."""
        keys = [info.key async for info in self._store.list(f"models/{name}/rollouts/")]
        key, content = f"models/{name}/rollouts/{rollout.revision:08d}", one(MessageToJson(rollout).encode())
        changed = Conflict(f"somebody else changed the rollout of '{name}' just now; look again and retry")
        if key in keys:  # not every store honours the condition
            raise changed
        try:
            await change.write(self._store.put(key, content, if_absent=True))
        except AlreadyExists as error:
            raise changed from error
        for old in keys[: 1 - REVISIONS_KEPT]:
            await change.write(self._store.delete(old))
        return rollout


def _current(model: Model, expected: int) -> Rollout | None:
    """The model's rollout, None where it has none. Raises Conflict unless it is at the expected revision (-1: any)."""
    current = model.rollout if model.HasField("rollout") else None
    revision = current.revision if current is not None else 0
    if expected not in {-1, revision}:
        raise Conflict(f"the rollout of '{model.name}' is at revision {revision}, not {expected}; look again and retry")
    return current


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
