"""The registry as a process: `python -m services.registry`."""

import asyncio
import socket
import sys
from pathlib import Path

from grpc import aio
from pydantic import Field

from headrace.v1.fleet_pb2_grpc import add_FleetServiceServicer_to_server
from headrace.v1.registry_pb2_grpc import add_RegistryServiceServicer_to_server
from headrace.v1.rollout_pb2_grpc import add_RolloutServiceServicer_to_server
from services.common.errors import HeadraceError, InvalidArgument
from services.common.lifecycle import run
from services.common.objects.connect import clock_of, open_store
from services.common.rpc import serving
from services.common.settings import ServiceSettings
from services.common.telemetry.setup import start
from services.common.tenants.access import Access, open_access
from services.common.tls import Tls, open_tls
from services.registry.catalog import Catalog
from services.registry.collector import Collector
from services.registry.fleet import FleetServer
from services.registry.observation import GarbageObserver
from services.registry.rollout_chain import RolloutChain
from services.registry.rollout_service import RolloutServer
from services.registry.service import RegistryServer
from services.registry.timer import Timer
from services.registry.watching import Watchers
from services.registry.writers import writers_only


class RegistrySettings(ServiceSettings):
    """Settings of the registry, HEADRACE_* in the environment.

    Attributes:
        listen: host:port.
        store: file:///folder or s3://bucket/prefix?endpoint=…
        gc_every: seconds from one collection of files that no version uses to the next, by one registry of all on the
            store; 0: only when somebody asks for it.
    """

    listen: str = "127.0.0.1:8003"
    store: str = Field(default_factory=lambda: Path(".headrace/store").resolve().as_uri())
    gc_every: float = Field(default=0.0, ge=0)


async def main(stop: asyncio.Event) -> None:
    """Serves until told to stop."""
    settings = RegistrySettings()
    try:
        async with open_tls(settings) as tls:
            with start("registry", settings.listen, settings, tls) as telemetry:
                async with open_access(settings.tenants) as access:
                    await _serve(settings, GarbageObserver(telemetry.ledger), access, tls, stop)
    except InvalidArgument as error:
        sys.exit(f"registry: {error}")


async def _serve(
    settings: RegistrySettings, observer: GarbageObserver, access: Access | None, tls: Tls | None, stop: asyncio.Event
) -> None:
    try:
        store = await open_store(settings.store, settings.tls_store_ca)
        await clock_of(store)  # it can be written, and lists what was
        catalog = Catalog(store)
        watchers = Watchers(catalog)
        await watchers.look()
    except HeadraceError as error:
        sys.exit(f"registry: {error}")

    collector = Collector(store, observer.ended)

    def register(server: aio.Server) -> None:
        add_RegistryServiceServicer_to_server(RegistryServer(catalog, watchers, collector), server)
        add_FleetServiceServicer_to_server(FleetServer(), server)
        add_RolloutServiceServicer_to_server(RolloutServer(RolloutChain(catalog, store), watchers), server)

    names = ["headrace.v1.RegistryService", "headrace.v1.FleetService", "headrace.v1.RolloutService"]
    check = writers_only(access) if access is not None else None
    server = serving(settings.listen, names, register, grace=0.2, check=check, tls=tls)
    async with asyncio.TaskGroup() as tasks, server as port:
        address = f"{settings.listen.rpartition(':')[0]}:{port}"
        running = [tasks.create_task(watchers.poll(), name="store poll")]
        if settings.gc_every:
            timer = Timer(store, collector, settings.gc_every, f"{socket.gethostname()} {address}")
            running.append(tasks.create_task(timer.run(), name="garbage timer"))
        print(f"ready registry {address}", flush=True)
        await stop.wait()
        for task in running:
            task.cancel()


if __name__ == "__main__":
    run(main)
