"""The worker as a process: `python -m services.worker`."""

import asyncio
import logging
import os
import secrets
import socket
import sys
import time
from pathlib import Path

from headrace.v1.fleet_pb2 import Worker
from services.common.broker.connect import connect
from services.common.catalog_watch import CatalogWatch
from services.common.errors import InvalidArgument
from services.common.lifecycle import run
from services.common.rpc import channel, serving
from services.common.telemetry.instruments import WorkerInstruments
from services.common.telemetry.setup import Telemetry, start
from services.common.tls import Tls, open_tls
from services.worker.cache import ArtifactCache
from services.worker.device import Device, resident_bytes
from services.worker.fleet import report
from services.worker.guard import guard, memory_limit
from services.worker.holdings import Holdings
from services.worker.lanes import LaneMaker
from services.worker.recorder import Recorder
from services.worker.replies.links import Links
from services.worker.residents import Residents, give_back_memory
from services.worker.settings import WorkerSettings

log = logging.getLogger(__name__)


async def main(stop: asyncio.Event) -> None:
    """Serves until told to stop, then drains."""
    settings = WorkerSettings()
    worker_id = settings.worker_id or f"worker-{secrets.token_hex(4)}"
    try:
        async with open_tls(settings) as tls:
            with start("worker", worker_id, settings, tls) as telemetry:
                await _serve(settings, worker_id, telemetry, tls, stop)
    except InvalidArgument as error:
        sys.exit(f"worker: {error}")


async def _serve(
    settings: WorkerSettings, worker_id: str, telemetry: Telemetry, tls: Tls | None, stop: asyncio.Event
) -> None:
    at_start = resident_bytes()
    started_ms = time.time_ns() // 1_000_000
    broker = await connect(settings.broker, name=worker_id, tls=tls)
    device = Device(settings.threads, settings.loads)
    consuming = asyncio.Event()
    async with (
        channel(settings.registry, tls) as registry,
        serving(settings.listen, [], lambda server: None, grace=0.2, tls=tls, ready=consuming) as port,
        asyncio.TaskGroup() as group,
    ):
        cache = ArtifactCache(Path(settings.cache), registry, tls)
        recorder = Recorder(Path(settings.cache) / "workers", settings.worker_id)
        links = Links(worker_id, group, tls)
        changed, known = asyncio.Event(), asyncio.Event()
        residents = Residents(
            budget=settings.memory_budget,
            residency=settings.residency_seconds,
            idle=settings.idle_seconds,
            known=known,
            clock=asyncio.get_running_loop().time,
        )
        make_lane = LaneMaker(
            settings=settings,
            worker_id=worker_id,
            broker=broker,
            links=links,
            device=device,
            cache=cache,
            residents=residents,
            recorder=recorder,
            telemetry=telemetry,
            instruments=WorkerInstruments(telemetry.ledger),
            changed=changed,
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
        limit = memory_limit(settings.memory_limit, settings.memory_budget, at_start)
        guarding = group.create_task(guard(limit, resident_bytes, give_back_memory, stop), name="memory guard")
        sweeping = group.create_task(residents.sweep(), name="sweep")
        await _either(stop, known)
        await _either(stop, *(lane.consuming for lane in holdings.lanes()))
        if not stop.is_set():
            consuming.set()
            print(f"ready worker {address}", flush=True)
        await stop.wait()
        log.info("draining: %d requests in hand", describe().running)
        watching.cancel()
        sweeping.cancel()
        guarding.cancel()
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
