"""Getting a version into memory: files to the cache, the runtime's load, warm-up; failures are remembered."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import numpy as np

from headrace.v1.fleet_pb2 import (
    LOAD_STATE_FAILED,
    LOAD_STATE_LOADING,
    LOAD_STATE_READY,
    LOAD_STATE_UNSPECIFIED,
    HeldModel,
    LoadState,
)
from headrace.v1.model_pb2 import ModelSpec, ModelVersion, TensorSpec
from services.common.datatypes import DATATYPES
from services.common.errors import HeadraceError
from services.common.tensors import Array
from services.worker.cache import ArtifactCache
from services.worker.device import Device, resident_bytes
from services.worker.placement import Key
from services.worker.recorder import Recorder
from services.worker.runtime import load_model
from services.worker.runtime.port import LoadedModel
from services.worker.strikes import refused_until

log = logging.getLogger(__name__)

FIRST_BACKOFF_SECONDS = 2.0
MOST_BACKOFF_SECONDS = 60.0
# The fleet is told of the download each time that so much more of it is here.
PROGRESS_STEP = 0.02


class HasDevice(Protocol):
    """Whatever is loaded, it is somewhere."""

    @property
    def device(self) -> str:
        """Where: "cpu", "cuda:0"."""


M = TypeVar("M", bound=HasDevice)


class Loader(Generic[M]):
    """Loads one version, once it is asked to; `on_change` is called when its state is another,
    with whether the model is in memory.

    Args:
        open_model: makes the model of the folder with its files.
        slots: how many models this worker loads at a time.
        recorder: remembers the model if the process ends while it loads.

    Attributes:
        model: the loaded model, None before and after a failure.
        size: bytes that the model is charged: what its package declares or its files take, or more if it was seen to
            grow the process by more.
        seconds: how long the last load took, without the wait for a slot.
    """

    def __init__(
        self,
        version: ModelVersion,
        cache: ArtifactCache,
        open_model: Callable[[Path], Awaitable[M]],
        on_change: Callable[[bool], None],
        *,
        slots: asyncio.Semaphore,
        recorder: Recorder,
    ) -> None:
        self.model: M | None = None
        self._version = version
        self._cache = cache
        self._open_model = open_model
        self._on_change = on_change
        self._slots = slots
        self._recorder = recorder
        self._state: LoadState.ValueType = LOAD_STATE_UNSPECIFIED
        self._reason = ""
        self._retry_at = 0.0
        self._backoff = FIRST_BACKOFF_SECONDS
        # An ensemble is nothing but its models, which are charged by themselves.
        self._weightless = version.spec.HasField("ensemble")
        files = 0 if self._weightless else sum(file.size for file in version.files)
        self.size = version.spec.memory_bytes or files
        self.seconds = 0.0
        self._declared = self.size
        self._measured: int | None = None
        self._progress = 0.0
        self._check_strikes((version.name, version.version))

    @property
    def attempted(self) -> bool:
        """Somebody wanted the model in memory, and it is there, on its way, or failed."""
        return self._state != LOAD_STATE_UNSPECIFIED

    @property
    def loaded(self) -> bool:
        """It is in memory, warm."""
        return self.model is not None

    def status(self) -> HeldModel | None:
        """What the fleet is told; None while nobody has asked for the model."""
        if not self.attempted:
            return None
        return HeldModel(
            name=self._version.name,
            version=self._version.version,
            state=self._state,
            reason=self._reason,
            memory_bytes=self.size,
            progress=self._progress if self._state == LOAD_STATE_LOADING else 0.0,
        )

    def why_not(self) -> str:
        """The message for callers of a model that does not load."""
        return (
            f"model '{self._version.name}' version {self._version.version} does not load: {self._reason};"
            f" it is tried again in {self.retry_in():.0f} s, or push a version that loads"
        )

    def retry_in(self) -> float:
        """Seconds until `load` tries again what failed."""
        return max(0.0, self._retry_at - time.monotonic())

    def may_try(self) -> bool:
        """It did not fail a moment ago."""
        return time.monotonic() >= self._retry_at

    def refuse(self, reason: str) -> None:
        """It cannot be loaded here for a reason that a load would not find; it is tried again as after a failure."""
        self._failed(reason)

    async def load(self) -> bool:
        """Loads and warms up, unless it is loaded or failed a moment ago; whether the model is in memory."""
        if self.model is not None or not self.may_try():
            return self.loaded
        began = time.monotonic()
        self._progress = 0.0
        self._become(LOAD_STATE_LOADING)
        try:
            folder = await self._cache.folder(self._version, self._fetched)
            doing = self._recorder.loading((self._version.name, self._version.version))
            fetched = time.monotonic() - began
            async with self._slots:
                began = time.monotonic()
                before = resident_bytes()
                with self._recorder.during(doing):
                    model = await self._open_model(folder)
                self._measure(resident_bytes() - before)
        except HeadraceError as error:
            self._failed(str(error))
        except Exception as error:  # whatever a model's files do to a runtime, the worker's other models live on
            self._failed(f"{type(error).__name__}: {error}")
        else:
            self.model, self.seconds = model, fetched + time.monotonic() - began
            self._become(LOAD_STATE_READY)
            self._backoff = FIRST_BACKOFF_SECONDS
            log.info("loaded %s version %d on %s", self._version.name, self._version.version, model.device)
        return self.loaded

    def replace(self, model: M) -> None:
        """Another takes the place of the loaded model, between two batches."""
        self.model = model
        self._on_change(self.loaded)

    def unload(self) -> None:
        """Drops the model."""
        self.model = None
        self._become(LOAD_STATE_UNSPECIFIED)

    def _check_strikes(self, key: Key) -> None:
        """Refuses at first what ended earlier processes of this worker."""
        strikes = self._recorder.strikes(key)
        seconds = refused_until(strikes) - time.time()
        if seconds > 0:
            what = (
                f"{strikes.loads} times while it was loaded" if strikes.loads else f"{strikes.runs} times while it ran"
            )
            self._state, self._reason = LOAD_STATE_FAILED, f"it ended this worker's process {what}"
            self._retry_at = time.monotonic() + seconds
            log.error("%s", self.why_not())

    def _fetched(self, done: int, total: int) -> None:
        """So many bytes of the files are here."""
        progress = done / total if total else 1.0
        if progress - self._progress >= PROGRESS_STEP:
            self._progress = progress
            self._on_change(False)

    def _measure(self, grown: int) -> None:
        """What others allocate meanwhile only adds to it: the smallest of all loads is nearest to the truth."""
        if self._weightless:
            return
        self._measured = grown if self._measured is None else min(grown, self._measured)
        self.size = max(self._declared, self._measured)

    def _become(self, state: LoadState.ValueType, reason: str = "") -> None:
        self._state, self._reason = state, reason
        self._on_change(self.loaded)

    def _failed(self, reason: str) -> None:
        self._retry_at = time.monotonic() + self._backoff
        self._backoff = min(self._backoff * 2, MOST_BACKOFF_SECONDS)
        self._become(LOAD_STATE_FAILED, reason)
        log.error("%s", self.why_not())


def on_device(device: Device, spec: ModelSpec) -> Callable[[Path], Awaitable[LoadedModel]]:
    """Opens a model of tensors beside the device's thread, and warms it up on it when the device is free."""

    async def open_model(folder: Path) -> LoadedModel:
        model = await device.load(lambda: load_model(folder, spec, device.threads))
        async with device.turns.mine():
            await device.run(lambda: warm_up(model, spec))
        return model

    return open_model


def warm_up(model: LoadedModel, spec: ModelSpec) -> None:
    """Runs zeros once for each batch size, so that the first caller does not pay for lazy work. Blocks.

    Models that dislike zeros are not refused for it: what their callers send is theirs to know.
    """
    if spec.warmup.disabled:
        return
    largest = spec.batching.max_batch_size
    sizes = list(spec.warmup.batch_sizes) or ([1, largest] if largest else [1])
    for rows in sizes:
        try:
            model.run({tensor.name: _zeros(tensor, spec, rows) for tensor in spec.inputs if not tensor.optional})
        except Exception as error:
            log.warning("warm-up with %d rows of zeros failed: %s", rows, str(error).splitlines()[:1])
            return


def _zeros(tensor: TensorSpec, spec: ModelSpec, rows: int) -> Array:
    """Free axes get the size that `warmup.shapes` names, else 1."""
    batched = spec.batching.max_batch_size > 0
    dims = list(tensor.shape[1:] if batched else tensor.shape)
    if tensor.name in spec.warmup.shapes:
        dims = list(spec.warmup.shapes[tensor.name].dims)
    dims = [1 if size < 0 else size for size in dims]
    shape = [rows, *dims] if batched else dims
    if tensor.datatype == "BYTES":
        return np.full(shape, b"", dtype=object)
    return np.zeros(shape, dtype=DATATYPES[tensor.datatype].numpy)
