"""The single replica put together: the gateway's protocol over a model in the same process."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from headrace.v1.model_pb2 import Model, ModelVersion
from services.common.telemetry.instruments import WorkerInstruments
from services.common.telemetry.setup import Telemetry, start
from services.common.tenants.access import Access, open_access
from services.common.tls import Tls
from services.gateway.application import Application, AsgiApp
from services.gateway.backend import Backend
from services.gateway.calls import MethodTable
from services.gateway.console.live import Live
from services.gateway.console.pages import console_router
from services.gateway.door import guarded
from services.gateway.http import http_application
from services.gateway.observation import Observer
from services.gateway.openai.routes import openai_router
from services.gateway.protocol.repository import NoControl
from services.gateway.protocol.service import ProtocolService, model_infer
from services.gateway.routes import Routes
from services.gateway.settings import GatewaySettings
from services.gateway.text.service import TextGeneration
from services.single.backend import LocalBackend
from services.single.finding import Found, find
from services.single.loading import load
from services.single.picture import ReplicaPicture
from services.single.text import LocalText
from services.worker.device import Device
from services.worker.llm.port import EngineStats
from services.worker.observation import BatchObserver
from services.worker.text.loading import text_opener
from services.worker.text.observation import TextObserver


class SingleSettings(GatewaySettings):
    """Settings of a single replica.

    Attributes:
        model: a package's path, or NAME or NAME:VERSION (a number or an alias) in the registry.
        cache: folder for files from the registry.
        threads: intra-op threads.
    """

    model: str = ""
    cache: str = ".headrace/cache"
    threads: int = 1


@dataclass(frozen=True, slots=True)
class Single:
    """Implements Application."""

    methods: MethodTable
    http: AsgiApp
    backend: Backend

    def ready(self) -> bool:
        """The model was loaded before this was built; a language model may be on its way again."""
        return self.backend.ready()


@asynccontextmanager
async def single(settings: GatewaySettings, front: str, advertise: str, tls: Tls | None) -> AsyncIterator[Application]:
    """A running single replica. Raises HeadraceErrors where the model cannot be had or loaded."""
    own = SingleSettings()
    with start("single", own.listen, settings, tls) as telemetry:
        async with open_access(own.tenants) as access, _single(own, front, telemetry, access, tls) as application:
            yield application


@asynccontextmanager
async def _single(
    settings: SingleSettings, front: str, telemetry: Telemetry, access: Access | None, tls: Tls | None
) -> AsyncIterator[Single]:
    found = await find(settings.model, settings.registry, Path(settings.cache), tls)
    version = found.version
    routes = Routes()
    routes.update(Model(name=version.name, versions=[version]))
    observer = Observer(telemetry, queued=False)
    serving = _text if version.spec.HasField("text") else _tensors
    async with serving(found, settings.threads, telemetry) as backend:
        text = TextGeneration(routes, backend, observer)
        protocol = ProtocolService(routes, backend, observer, ready=backend.ready, control=NoControl()).methods()
        picture = ReplicaPicture(found, front, routes=routes, backend=backend, observer=observer)
        routers = openai_router(text, routes, model_infer(protocol)), console_router(Live(picture.look))
        http = http_application(protocol, *routers, access=access, most_bytes=settings.max_request_bytes)
        methods = {**protocol, **text.methods(), **picture.methods()}
        yield Single(guarded(methods, access), http, backend)


@asynccontextmanager
async def _tensors(found: Found, threads: int, telemetry: Telemetry) -> AsyncIterator[Backend]:
    """A model of tensors, loaded and warm: one request at a time."""
    device = Device(threads)
    try:
        model = await device.run(lambda: load(found, threads))
        yield LocalBackend(model, found.version, device, _batches(found.version, telemetry))
    finally:
        device.close()


@asynccontextmanager
async def _text(found: Found, threads: int, telemetry: Telemetry) -> AsyncIterator[Backend]:
    """A language model, loaded: many requests at a time."""
    version = found.version

    def observe(stats: Callable[[], EngineStats | None]) -> TextObserver:
        return TextObserver(telemetry, stats, name=(version.name, version.version), system="")

    opener = text_opener(version.spec, threads)
    backend = LocalText(version, lambda: opener(found.folder), observe)
    await backend.load()
    _batches(version, telemetry)
    try:
        async with asyncio.TaskGroup() as group:
            running = group.create_task(backend.run(), name=f"tokens of {version.name}")
            yield backend
            running.cancel()
    finally:
        await backend.close()


def _batches(version: ModelVersion, telemetry: Telemetry) -> BatchObserver:
    instruments = WorkerInstruments(telemetry.ledger)
    batches = BatchObserver(telemetry, instruments, model=version.name, version=version.version, queue="", system="")
    batches.loaded(True)
    return batches
