"""A lane for a version: of tensors or of text, with its loader and its observer."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from headrace.v1.model_pb2 import ModelVersion
from services.common.broker.connect import messaging_system
from services.common.broker.port import Broker
from services.common.queues import queue_name
from services.common.telemetry.instruments import WorkerInstruments
from services.common.telemetry.setup import Telemetry
from services.worker.assembly import Assembly, Lookup
from services.worker.cache import ArtifactCache
from services.worker.device import Device
from services.worker.holdings import AnyLane
from services.worker.lane import Lane
from services.worker.llm.port import EngineStats
from services.worker.loading import Loader, M, on_device
from services.worker.observation import BatchObserver
from services.worker.recorder import Recorder
from services.worker.replies.links import Links
from services.worker.residents import Residents
from services.worker.runtime.port import LoadedModel
from services.worker.settings import WorkerSettings
from services.worker.text.lane import TextLane
from services.worker.text.loading import text_opener
from services.worker.text.observation import TextObserver


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneMaker:
    """What all lanes of a worker share; called with a version, whether something names it, and how an ensemble finds
    the lanes of its models.

    Attributes:
        changed: set when a model's state changes.
    """

    settings: WorkerSettings
    worker_id: str
    broker: Broker
    links: Links
    device: Device
    cache: ArtifactCache
    residents: Residents
    recorder: Recorder
    telemetry: Telemetry
    instruments: WorkerInstruments
    changed: asyncio.Event

    def __call__(self, version: ModelVersion, eager: bool, lookup: Lookup) -> AnyLane:
        """A lane that has yet to run."""
        if version.spec.HasField("text"):
            return self._text(version, eager)
        if version.spec.HasField("ensemble"):
            assembly = Assembly(version, lookup, self.residents)
            return self._tensors(version, eager, assembly.open_model, assembly)
        return self._tensors(version, eager, on_device(self.device, version.spec))

    def _tensors(
        self,
        version: ModelVersion,
        eager: bool,
        opener: Callable[[Path], Awaitable[LoadedModel]],
        assembly: Assembly | None = None,
    ) -> Lane:
        observer = self._observer(version)
        loader = self._loader(version, opener, observer)
        return Lane(
            version,
            eager=eager,
            broker=self.broker,
            links=self.links,
            device=self.device,
            loader=loader,
            observer=observer,
            residents=self.residents,
            recorder=self.recorder,
            worker_id=self.worker_id,
            assembly=assembly,
        )

    def _text(self, version: ModelVersion, eager: bool) -> TextLane:
        observer = self._observer(version)
        loader = self._loader(version, text_opener(version.spec, self.settings.threads), observer)
        name, system = (version.name, version.version), messaging_system(self.settings.broker)

        def stats() -> EngineStats | None:
            return None if loader.model is None else loader.model.engine.stats()

        return TextLane(
            version,
            eager=eager,
            broker=self.broker,
            links=self.links,
            loader=loader,
            # Half of the drain is for generations to end by themselves, half to see the others into new hands.
            patience=self.settings.drain_seconds / 2,
            residents=self.residents,
            worker_id=self.worker_id,
            observer=TextObserver(self.telemetry, stats, name=name, system=system),
        )

    def _observer(self, version: ModelVersion) -> BatchObserver:
        return BatchObserver(
            self.telemetry,
            self.instruments,
            model=version.name,
            version=version.version,
            queue=queue_name(version.name, version.version),
            system=messaging_system(self.settings.broker),
        )

    def _loader(
        self, version: ModelVersion, opener: Callable[[Path], Awaitable[M]], observer: BatchObserver
    ) -> Loader[M]:
        def on_change(loaded: bool) -> None:
            observer.loaded(loaded)
            self.changed.set()

        return Loader(version, self.cache, opener, on_change, slots=self.device.loading, recorder=self.recorder)
