"""The registry as a process: `python -m services.registry`."""

import asyncio
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
from services.registry.rollout_chain import RolloutChain
from services.registry.rollout_service import RolloutServer
from services.registry.service import RegistryServer
from services.registry.watching import Watchers
from services.registry.writers import writers_only


class RegistrySettings(ServiceSettings):
    """HEADRACE_LISTEN: host:port; HEADRACE_STORE: file:///folder or s3://bucket/prefix?endpoint=…"""

    listen: str = "127.0.0.1:8003"
    store: str = Field(default_factory=lambda: Path(".headrace/store").resolve().as_uri())


async def main(stop: asyncio.Event) -> None:
    """Serves until told to stop."""
    settings = RegistrySettings()
    try:
        async with open_tls(settings) as tls:
            with start("registry", settings.listen, settings, tls):
                async with open_access(settings.tenants) as access:
                    await _serve(settings, access, tls, stop)
    except InvalidArgument as error:
        sys.exit(f"registry: {error}")


async def _serve(settings: RegistrySettings, access: Access | None, tls: Tls | None, stop: asyncio.Event) -> None:
    try:
        store = await open_store(settings.store, settings.tls_store_ca)
        await clock_of(store)  # it can be written, and lists what was
        catalog = Catalog(store)
        watchers = Watchers(catalog)
        await watchers.look()
    except HeadraceError as error:
        sys.exit(f"registry: {error}")

    def register(server: aio.Server) -> None:
        add_RegistryServiceServicer_to_server(RegistryServer(catalog, watchers, Collector(store)), server)
        add_FleetServiceServicer_to_server(FleetServer(), server)
        add_RolloutServiceServicer_to_server(RolloutServer(RolloutChain(catalog, store), watchers), server)

    names = ["headrace.v1.RegistryService", "headrace.v1.FleetService", "headrace.v1.RolloutService"]
    check = writers_only(access) if access is not None else None
    server = serving(settings.listen, names, register, grace=0.2, check=check, tls=tls)
    async with asyncio.TaskGroup() as tasks, server as port:
        poller = tasks.create_task(watchers.poll(), name="store poll")
        print(f"ready registry {settings.listen.rpartition(':')[0]}:{port}", flush=True)
        await stop.wait()
        poller.cancel()


if __name__ == "__main__":
    run(main)
