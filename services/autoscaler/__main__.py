"""The autoscaler as a process: `python -m services.autoscaler`."""

import asyncio
import logging
import sys
from contextlib import AsyncExitStack
from functools import partial

from grpc import aio

from headrace.keda.externalscaler_pb2_grpc import add_ExternalScalerServicer_to_server
from headrace.v1.autoscaler_pb2_grpc import add_AutoscalerServiceServicer_to_server
from services.autoscaler import limits
from services.autoscaler.api import AutoscalerServer
from services.autoscaler.keda import KedaServer
from services.autoscaler.observation import ScalingObserver
from services.autoscaler.orchestrators.connect import connect as connect_orchestrator
from services.autoscaler.scaling import Scaling
from services.autoscaler.senses import FleetWatch, depths
from services.autoscaler.settings import AutoscalerSettings
from services.autoscaler.signals.picture import Painter
from services.common.broker.connect import connect as connect_broker
from services.common.errors import HeadraceError
from services.common.lease import Lease
from services.common.lifecycle import run
from services.common.objects.connect import honours_conditions, open_store
from services.common.objects.port import ObjectStore
from services.common.rpc import channel, serving
from services.common.telemetry.setup import start
from services.common.tls import Tls, open_tls

log = logging.getLogger(__name__)

SERVICES = ["headrace.v1.AutoscalerService", "externalscaler.ExternalScaler"]


async def main(stop: asyncio.Event) -> None:
    """Serves until told to stop; workers stay as they are."""
    settings = AutoscalerSettings()
    try:
        async with open_tls(settings) as tls:
            with start("autoscaler", settings.listen, settings, tls) as telemetry:
                await _serve(settings, ScalingObserver(telemetry.ledger), tls, stop)
    except HeadraceError as error:
        sys.exit(f"autoscaler: {error}")


async def _serve(settings: AutoscalerSettings, observer: ScalingObserver, tls: Tls | None, stop: asyncio.Event) -> None:
    config, store = settings.policy(), await _open(settings)
    async with AsyncExitStack() as parts:
        orchestrator = await connect_orchestrator(settings.orchestrator)
        if orchestrator is not None:
            parts.push_async_callback(orchestrator.close)
        broker = await connect_broker(settings.broker, name="autoscaler", tls=tls)
        parts.push_async_callback(broker.close)
        fleet = FleetWatch(await parts.enter_async_context(channel(settings.registry, tls)))
        painter = Painter(settings.stuck_seconds)
        scaling = Scaling(
            config,
            painter=painter,
            fleet=fleet,
            depths=partial(depths, broker),
            orchestrator=orchestrator,
            observer=observer,
            active=lambda: lease.held,
        )
        lease = Lease(store, "autoscaler/lease/", "", scaling.take_over)
        api = AutoscalerServer(scaling, lease, store, orchestrator.kind if orchestrator else "none")

        def register(server: aio.Server) -> None:
            add_AutoscalerServiceServicer_to_server(api, server)
            add_ExternalScalerServicer_to_server(KedaServer(scaling), server)

        port = await parts.enter_async_context(serving(settings.listen, SERVICES, register, grace=0.2, tls=tls))
        address = f"{settings.listen.rpartition(':')[0]}:{port}"
        lease.name = settings.advertise or address
        tasks = await parts.enter_async_context(asyncio.TaskGroup())
        running = [tasks.create_task(work) for work in (fleet.run(), lease.run(), scaling.run(), _obey(store, scaling))]
        print(f"ready autoscaler {address}", flush=True)
        await stop.wait()
        for task in running:
            task.cancel()


async def _obey(store: ObjectStore, scaling: Scaling) -> None:
    """What was set before this process began, or while another one was active."""
    while True:
        try:
            scaling.obey(await limits.load(store))
        except HeadraceError as error:
            log.warning("the limits that were set cannot be read, the last known ones hold: %s", error)
        await asyncio.sleep(5.0)


async def _open(settings: AutoscalerSettings) -> ObjectStore:
    """The store, after a look at what it does with conditional writes."""
    store = await open_store(settings.store, settings.tls_store_ca)
    if not await honours_conditions(store):
        log.warning("the store ignores conditional writes: run only ONE autoscaler on it, else several may act at once")
    return store


if __name__ == "__main__":
    run(main)
