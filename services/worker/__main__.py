"""The worker as a process: `python -m services.worker`."""

import asyncio
import logging
import os
import secrets
import socket
import time
from pathlib import Path

from headrace.v1.fleet_pb2 import Worker
from headrace.v1.model_pb2 import ModelVersion
from services.common.broker.connect import connect, messaging_system
from services.common.catalog_watch import CatalogWatch
from services.common.lifecycle import run
from services.common.queues import queue_name
from services.common.rpc import channel, serving
from services.common.telemetry.instruments import WorkerInstruments
from services.common.telemetry.setup import Telemetry, start
from services.worker.cache import ArtifactCache
from services.worker.device import Device, resident_bytes
from services.worker.fleet import report
from services.worker.holdings import AnyLane, Holdings
from services.worker.lane import Lane
from services.worker.loading import Loader, on_device
from services.worker.observation import BatchObserver
from services.worker.replies.links import Links
from services.worker.residents import Residents
from services.worker.settings import WorkerSettings
from services.worker.text.lane import TextLane
from services.worker.text.loading import text_opener
from services.worker.text.observation import TextObserver

log = logging.getLogger(__name__)


async def main(stop: asyncio.Event) -> None:
    """Serves until told to stop, then drains."""
    settings = WorkerSettings()
    worker_id = settings.worker_id or f"worker-{secrets.token_hex(4)}"
    with start("worker", worker_id, settings) as telemetry:
        await _serve(settings, worker_id, telemetry, stop)


async def _serve(settings: WorkerSettings, worker_id: str, telemetry: Telemetry, stop: asyncio.Event) -> None:
    started_ms = time.time_ns() // 1_000_000
    broker = await connect(settings.broker, name=worker_id)
    device = Device(settings.threads, settings.loads)
    async with (
        channel(settings.registry) as registry,
        serving(settings.listen, [], lambda server: None, grace=0.2) as port,
        asyncio.TaskGroup() as group,
    ):
        cache = ArtifactCache(Path(settings.cache), registry)
        links = Links(worker_id, group)
        changed, known = asyncio.Event(), asyncio.Event()
        residents = Residents(
            budget=settings.memory_budget,
            residency=settings.residency_seconds,
            idle=settings.idle_seconds,
            known=known,
            clock=asyncio.get_running_loop().time,
        )
        instruments, system = WorkerInstruments(telemetry.ledger), messaging_system(settings.broker)

        def make_lane(version: ModelVersion, eager: bool) -> AnyLane:
            queue = queue_name(version.name, version.version)
            observer = BatchObserver(
                telemetry, instruments, model=version.name, version=version.version, queue=queue, system=system
            )

            def on_change(loaded: bool) -> None:
                observer.loaded(loaded)
                changed.set()

            if version.spec.HasField("text"):
                opener = text_opener(version.spec, settings.threads)
                text_loader = Loader(version, cache, opener, on_change, device.loading)
                # Half of the drain is for generations to end by themselves, half to see the others into new hands.
                patience = settings.drain_seconds / 2
                name = (version.name, version.version)
                return TextLane(
                    version,
                    eager=eager,
                    broker=broker,
                    links=links,
                    loader=text_loader,
                    patience=patience,
                    residents=residents,
                    worker_id=worker_id,
                    observer=TextObserver(telemetry, text_loader, name=name, system=system),
                )
            loader = Loader(version, cache, on_device(device, version.spec), on_change, device.loading)
            return Lane(
                version,
                eager=eager,
                broker=broker,
                links=links,
                device=device,
                loader=loader,
                observer=observer,
                residents=residents,
                worker_id=worker_id,
            )

        holdings = Holdings(settings.model_names(), make_lane, group)
        links.on_cancelled, links.on_change = holdings.cancel, holdings.link_changed
        address = f"{settings.listen.rpartition(':')[0]}:{port}"

        def describe() -> Worker:
            lanes = holdings.lanes()
            return Worker(
                id=worker_id,
                address=address,
                pid=os.getpid(),
                device=next((lane.loader.model.device for lane in lanes if lane.loader.model), "cpu"),
                models=holdings.held(),
                running=sum(lane.running for lane in lanes),
                completed=sum(lane.completed for lane in lanes),
                resident_bytes=resident_bytes(),
                started_unix_ms=started_ms,
                memory_budget_bytes=residents.budget,
                memory_used_bytes=residents.used,
                loads=residents.loads,
                evictions=residents.evictions,
                draining=stop.is_set(),
                hostname=socket.gethostname(),
            )

        watch = CatalogWatch(registry, holdings, synced=known)
        watching = group.create_task(watch.run(), name="catalogue watch")
        reporting = group.create_task(report(registry, describe, changed), name="fleet report")
        sweeping = group.create_task(residents.sweep(), name="sweep")
        await _either(stop, known)
        await _either(stop, *(lane.consuming for lane in holdings.lanes()))
        if not stop.is_set():
            print(f"ready worker {address}", flush=True)
        await stop.wait()
        log.info("draining: %d requests in hand", describe().running)
        watching.cancel()
        sweeping.cancel()
        changed.set()
        try:
            await asyncio.wait_for(holdings.drain(), settings.drain_seconds)
        except TimeoutError:
            log.warning("drained for %.0f s; what is left goes back to the queue", settings.drain_seconds)
        holdings.close()
        links.close()
        reporting.cancel()
    await broker.close()
    device.close()


async def _either(stop: asyncio.Event, *events: asyncio.Event) -> None:
    """Until all events are set, or the process is told to stop."""

    async def everything() -> None:
        for event in events:
            await event.wait()

    tasks = [asyncio.create_task(everything()), asyncio.create_task(_set(stop))]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()


async def _set(event: asyncio.Event) -> None:
    await event.wait()


if __name__ == "__main__":
    run(main)
