"""The models of an ensemble in this worker's memory: brought in together, held while it runs, followed as they move."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from headrace.v1.model_pb2 import EnsembleStep, ModelVersion
from services.common.ensembles import check_fit
from services.common.errors import FailedPrecondition, HeadraceError
from services.worker.loading import Loader
from services.worker.occupancy import Entered, Occupancy
from services.worker.residents import Residents, mebibytes
from services.worker.runtime.ensemble import EnsembleModel, Step
from services.worker.runtime.port import LoadedModel

log = logging.getLogger(__name__)

# How long an ensemble goes on with its former models before it tries again to follow.
FOLLOW_SECONDS = 1.0


class Member(Protocol):
    """A model that an ensemble runs: its lane, whether it is served by itself or not."""

    version: ModelVersion
    loader: Loader[LoadedModel]
    occupancy: Occupancy


# The model that a step names now. Raises HeadraceError where there is none.
Lookup = Callable[[EnsembleStep], Member]


class Assembly:
    """Implements Parts for the models of one ensemble version: each is in memory once, whoever else uses it.

    Two that both need room could hold what the other waits for: one assembles at a time.
    """

    def __init__(self, version: ModelVersion, lookup: Lookup, residents: Residents) -> None:
        self._version = version
        self._lookup = lookup
        self._residents = residents
        self._held: list[Member] = []  # one for each step
        self._following = asyncio.Lock()

    async def enter(self, holder: Occupancy, *, urgent: bool) -> tuple[Entered, str]:
        """Brings all models in and holds them, or none; with the reason where that fails."""
        await self._residents.known()
        try:
            members = self._members()
            self._check_room(members)
        except HeadraceError as error:
            return Entered.FAILED, str(error)
        entered, reason = await self._bring_in(members, holder, urgent=urgent)
        if entered is Entered.LOADED:
            self._held = members
        else:
            self._release(members, holder)
        return entered, reason

    def let_go(self, holder: Occupancy) -> None:
        """The ensemble left memory: its models may, too."""
        held, self._held = self._held, []
        self._release(held, holder)

    async def open_model(self, folder: Path) -> EnsembleModel:
        """The pipeline over the models that are held."""
        return self._build(self._held)

    async def follow(self, holder: Occupancy, loader: Loader[LoadedModel]) -> None:
        """Runs on what the steps name now, once that is in memory; until then it goes on with what they named before.

        Where there is no room for both, it leaves memory between two batches, and comes back with the new ones.
        """
        async with self._following:
            while loader.loaded:
                try:
                    members = self._members()
                except HeadraceError as error:  # the next change of a step's model makes it look again
                    self._stays(str(error))
                    return
                if _keys(members) == _keys(self._held):
                    return
                entered, reason = await self._bring_in(members, holder, urgent=True)
                if entered is Entered.LOADED and loader.loaded:
                    loader.replace(self._build(members))
                    self._held, members = members, self._held
                self._release([each for each in members if each not in self._held], holder)
                if entered is Entered.NO_ROOM and await holder.leave():
                    return
                if entered is Entered.FAILED:
                    self._stays(reason)
                if entered is not Entered.LOADED:
                    await asyncio.sleep(FOLLOW_SECONDS)

    def _stays(self, reason: str) -> None:
        log.error("ensemble '%s' goes on with the models that it has: %s", self._version.name, reason)

    def _members(self) -> list[Member]:
        """What the steps name now, one for each step. Raises HeadraceError where one is not there or does not fit."""
        members = {(step.model, step.version): self._lookup(step) for step in self._version.spec.ensemble.steps}
        check_fit(self._version.spec, lambda step: members[step.model, step.version].version)
        return [members[step.model, step.version] for step in self._version.spec.ensemble.steps]

    def _check_room(self, members: list[Member]) -> None:
        together = sum({_key(member): member.loader.size for member in members}.values())
        if 0 < self._residents.budget < together:
            raise FailedPrecondition(
                f"the models of its steps take {mebibytes(together)} together, over this worker's memory budget of"
                f" {mebibytes(self._residents.budget)}; raise HEADRACE_MEMORY_BUDGET"
            )

    async def _bring_in(self, members: list[Member], holder: Occupancy, *, urgent: bool) -> tuple[Entered, str]:
        async with self._residents.assembling:
            for member in members:
                # From now on it stays, as long as the holder has work or is on its way in.
                member.occupancy.holders.add(holder)
                entered = await member.occupancy.enter(urgent=urgent)
                if entered is not Entered.LOADED:
                    return entered, f"its step's {member.loader.why_not()}" if entered is Entered.FAILED else ""
            if not all(member.loader.loaded for member in members):  # one was deleted meanwhile
                return Entered.NO_ROOM, ""
        return Entered.LOADED, ""

    def _release(self, members: list[Member], holder: Occupancy) -> None:
        for member in members:
            member.occupancy.holders.discard(holder)

    def _build(self, members: list[Member]) -> EnsembleModel:
        """Raises FailedPrecondition."""
        steps = []
        for step, member in zip(self._version.spec.ensemble.steps, members, strict=True):
            if (model := member.loader.model) is None:
                raise FailedPrecondition(f"its step '{step.model}' has just left memory")
            name, version = member.version.name, member.version.version
            steps.append(Step(name, version, model, dict(step.input_map), dict(step.output_map)))
        return EnsembleModel(steps, [tensor.name for tensor in self._version.spec.outputs])


def _key(member: Member) -> tuple[str, int]:
    return member.version.name, member.version.version


def _keys(members: list[Member]) -> list[tuple[str, int]]:
    return [_key(member) for member in members]
