"""What this worker serves: a lane for each version that the registry names, as the catalogue changes."""

import asyncio
from collections.abc import Callable

from headrace.v1.fleet_pb2 import LOAD_STATE_DRAINING, LOAD_STATE_READY, HeldModel
from headrace.v1.model_pb2 import EnsembleStep, Model, ModelVersion
from services.common.ensembles import found_in
from services.common.errors import FailedPrecondition
from services.worker.assembly import Lookup, Member
from services.worker.lane import Lane
from services.worker.replies.link import Link
from services.worker.text.lane import TextLane

Key = tuple[str, int]
AnyLane = Lane | TextLane
# Gateways hear of a version's end when workers do, if not in the same moment.
LINGER_SECONDS = 1.0
DRY_SECONDS = 30.0


class Holdings:
    """Implements CatalogListener.

    The latest version and those with an alias are loaded at once, if there is room for all such versions of all models;
    others when the first request comes. A version on trial is loaded even if others must leave for it: a rollout waits.

    Args:
        only: model names to serve; empty: all. What their ensembles run besides is held, but not served.
        make_lane: builds a lane for a version.
    """

    def __init__(
        self, only: set[str], make_lane: Callable[[ModelVersion, bool, Lookup], AnyLane], group: asyncio.TaskGroup
    ) -> None:
        self._only = only
        self._make_lane = make_lane
        self._group = group
        self._lanes: dict[Key, AnyLane] = {}
        self._silent: dict[Key, AnyLane] = {}  # never run: they consume nothing
        self._tasks: dict[Key, asyncio.Task[None]] = {}
        self._ends: dict[Key, asyncio.Task[None]] = {}
        self._following: set[asyncio.Task[None]] = set()
        self._models: dict[str, Model] = {}
        self._draining = False

    def names(self) -> list[str]:
        """All models that the registry names."""
        return sorted(self._models)

    def update(self, model: Model) -> None:
        """Begins and ends lanes until they match the model; one that is unloaded has none."""
        self._models[model.name] = model
        if not self._only or model.name in self._only:
            self._match(model)
        numbers = {version.version for version in model.versions}
        for key in [key for key in self._silent if key[0] == model.name and key[1] not in numbers]:
            self._silent.pop(key).gone()
        for lane in self._lanes.values():
            if isinstance(lane, Lane) and any(step.model == model.name for step in lane.version.spec.ensemble.steps):
                following = self._group.create_task(lane.follow(), name=f"ensemble {lane.version.name} follows")
                self._following.add(following)
                following.add_done_callback(self._following.discard)

    def member(self, step: EnsembleStep) -> Member:
        """The lane of the model that an ensemble's step names. Raises NotFound, FailedPrecondition."""
        version = found_in(self._models, step)
        key = (version.name, version.version)
        lane = self._lanes.get(key) or self._silent.get(key)
        if lane is None:
            lane = self._silent[key] = self._make_lane(version, False, self.member)
        if isinstance(lane, TextLane):
            raise FailedPrecondition(f"'{version.name}' version {version.version} is a language model, which streams")
        return lane

    def _match(self, model: Model) -> None:
        latest = max((version.version for version in model.versions), default=0)
        current = set(model.aliases.values()) | {latest}
        versions = [] if model.unloaded else model.versions
        wanted = {(model.name, version.version): version for version in versions}
        for key in [key for key in self._lanes if key[0] == model.name and key not in wanted]:
            self._end(key)
        trial = model.rollout.candidate
        for key, version in wanted.items():
            if key in self._lanes:
                self._lanes[key].eagerness.want(version.version in current, now=version.version == trial)
            elif key not in self._ends:  # else once that lane has ended
                lane = self._silent.pop(key, None) or self._make_lane(version, version.version in current, self.member)
                self._lanes[key] = lane
                lane.eagerness.want(version.version in current, now=version.version == trial)
                self._tasks[key] = self._group.create_task(lane.run(), name=f"lane {version.name} {version.version}")

    def remove(self, name: str) -> None:
        """Ends all lanes of a model."""
        self._models.pop(name, None)
        for key in [key for key in self._lanes if key[0] == name]:
            self._end(key)
        for key in [key for key in self._silent if key[0] == name]:
            self._silent.pop(key).gone()

    def link_changed(self, link: Link) -> None:
        """A gateway came or went."""
        for lane in self._lanes.values():
            lane.link_changed(link)

    def cancel(self, reply_to: str, request_id: int) -> None:
        """Nobody waits for a request any more."""
        for lane in self._lanes.values():
            lane.cancel(reply_to, request_id)

    async def drain(self) -> None:
        """Returns once every lane has answered what it began."""
        self._draining = True
        await asyncio.gather(*(lane.drain() for lane in self._lanes.values()))

    def close(self) -> None:
        """Ends all lanes, finished or not."""
        for key in list(self._lanes):
            self._lanes.pop(key)
            self._tasks.pop(key).cancel()
        for task in [*self._ends.values(), *self._following]:
            task.cancel()

    def lanes(self) -> list[AnyLane]:
        """All lanes that serve."""
        return list(self._lanes.values())

    def held(self) -> list[HeldModel]:
        """What the fleet is told."""
        lanes = [*self._lanes.values(), *self._silent.values()]
        held = [status for lane in lanes if (status := lane.held()) is not None]
        for status in held:
            if self._draining and status.state == LOAD_STATE_READY:
                status.state = LOAD_STATE_DRAINING
        return held

    def _end(self, key: Key) -> None:
        """Lets the lane of a deleted or unloaded version answer what there is, in the background, then drops it.

        Nothing is handed back: there will be no other worker for it.
        """
        lane, task = self._lanes.pop(key), self._tasks.pop(key)

        async def end() -> None:
            try:
                await asyncio.sleep(LINGER_SECONDS)
                await lane.run_dry(DRY_SECONDS)
                await lane.drain(hand_back=False)
            finally:
                task.cancel()
                lane.gone()

        ending = self._ends[key] = self._group.create_task(end(), name=f"end of lane {key[0]} {key[1]}")
        ending.add_done_callback(lambda _: self._ended(key))

    def _ended(self, key: Key) -> None:
        """It may have been loaded again meanwhile."""
        self._ends.pop(key, None)
        if key[0] in self._models and not self._draining:
            self.update(self._models[key[0]])
