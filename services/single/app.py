"""The single replica put together: the gateway's protocol over a model in the same process."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from headrace.v1.model_pb2 import Model
from services.common.telemetry.instruments import WorkerInstruments
from services.common.telemetry.setup import Telemetry, start
from services.common.tenants.access import Access, open_access
from services.gateway.application import Application, AsgiApp
from services.gateway.calls import MethodTable
from services.gateway.door import guarded
from services.gateway.http import http_application
from services.gateway.observation import Observer
from services.gateway.protocol.repository import NoControl
from services.gateway.protocol.service import ProtocolService
from services.gateway.routes import Routes
from services.gateway.settings import GatewaySettings
from services.single.backend import LocalBackend
from services.single.finding import find
from services.worker.device import Device
from services.worker.loading import warm_up
from services.worker.observation import BatchObserver
from services.worker.runtime import load_model


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

    def ready(self) -> bool:
        """The model was loaded before this was built."""
        return True


@asynccontextmanager
async def single(settings: GatewaySettings, front: str, advertise: str) -> AsyncIterator[Application]:
    """A running single replica. Raises HeadraceErrors where the model cannot be had or loaded."""
    own = SingleSettings()
    with start("single", own.listen, settings) as telemetry:
        async with open_access(own.tenants) as access, _single(own, telemetry, access) as application:
            yield application


@asynccontextmanager
async def _single(settings: SingleSettings, telemetry: Telemetry, access: Access | None) -> AsyncIterator[Single]:
    folder, version = await find(settings.model, settings.registry, Path(settings.cache))
    device = Device(settings.threads)
    model = await device.run(lambda: load_model(folder, version.spec, settings.threads))
    await device.run(lambda: warm_up(model, version.spec))
    routes = Routes()
    routes.update(Model(name=version.name, versions=[version]))
    instruments = WorkerInstruments(telemetry.ledger)
    batches = BatchObserver(telemetry, instruments, model=version.name, version=version.version, queue="", system="")
    batches.loaded(True)
    backend = LocalBackend(model, version, device, batches)
    observer = Observer(telemetry, queued=False)
    methods = ProtocolService(routes, backend, observer, ready=lambda: True, control=NoControl()).methods()
    try:
        yield Single(guarded(methods, access), http_application(methods, access=access))
    finally:
        device.close()
