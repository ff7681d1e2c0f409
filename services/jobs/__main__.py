"""The job service as a process: `python -m services.jobs`."""

import asyncio
import logging
import socket
import sys
from contextlib import AsyncExitStack

from grpc import aio

from headrace.v1.jobs_pb2_grpc import add_FileServiceServicer_to_server, add_JobServiceServicer_to_server
from services.common.errors import HeadraceError
from services.common.lease import Lease
from services.common.lifecycle import run
from services.common.objects.connect import honours_conditions, open_store
from services.common.rpc import channel, serving
from services.common.telemetry.setup import start
from services.common.tenants.access import Access, open_access
from services.common.tls import Tls, open_tls
from services.jobs.backlog import report_backlog
from services.jobs.chunks import MOST_REQUESTS
from services.jobs.door import Door
from services.jobs.file_service import FileServer
from services.jobs.files import FileStore
from services.jobs.gateways import Gateways
from services.jobs.job_service import JobServer
from services.jobs.observation import JobObserver
from services.jobs.retention import Sweeper
from services.jobs.runner import Runner
from services.jobs.settings import JobsSettings
from services.jobs.store import JobStore

log = logging.getLogger(__name__)

SERVICES = ["headrace.v1.JobService", "headrace.v1.FileService"]


async def main(stop: asyncio.Event) -> None:
    """Serves until told to stop; what is under way is begun again by whoever comes next."""
    settings = JobsSettings()
    try:
        async with open_tls(settings) as tls:
            with start("jobs", settings.listen, settings, tls) as telemetry:
                async with open_access(settings.tenants) as access:
                    await _serve(settings, JobObserver(telemetry.ledger), access, tls, stop)
    except HeadraceError as error:
        sys.exit(f"jobs: {error}")


async def _serve(
    settings: JobsSettings, observer: JobObserver, access: Access | None, tls: Tls | None, stop: asyncio.Event
) -> None:
    store = await open_store(settings.store, settings.tls_store_ca)
    if not await honours_conditions(store):
        log.warning("the store ignores conditional writes: run only ONE job service on it, else requests are run twice")
    jobs = JobStore(store)
    files = FileStore(store, jobs)
    async with AsyncExitStack() as parts:
        addresses = [each.strip() for each in settings.gateways.split(",")]
        gateways = Gateways(addresses, settings.jobs_in_flight, settings.api_key, tls)
        parts.push_async_callback(gateways.close)
        # So many that all places are taken while the last requests of some chunks are still running.
        ahead = 1 + 2 * settings.jobs_in_flight // MOST_REQUESTS
        runner = Runner(jobs, gateways.ask, observer, active=lambda: lease.held, ahead=ahead)
        lease = Lease(store, "jobs/lease/", "", runner.news.set)

        door = Door(access)

        def register(server: aio.Server) -> None:
            add_JobServiceServicer_to_server(JobServer(jobs, files, door, runner.news.set), server)
            add_FileServiceServicer_to_server(FileServer(files, door), server)

        server = serving(settings.listen, SERVICES, register, grace=0.5, check=door.check, tls=tls)
        port = await parts.enter_async_context(server)
        address = f"{settings.listen.rpartition(':')[0]}:{port}"
        lease.name = settings.advertise or address
        registry = await parts.enter_async_context(channel(settings.registry, tls))
        tasks = await parts.enter_async_context(asyncio.TaskGroup())
        reporting = report_backlog(registry, f"{socket.gethostname()} {lease.name}", runner.waiting)
        sweeper = Sweeper(store, jobs, files, settings.jobs_keep_days * 24 * 3600, lambda: lease.held)
        running = [tasks.create_task(work) for work in (lease.run(), runner.run(), reporting, sweeper.run())]
        print(f"ready jobs {address}", flush=True)
        await stop.wait()
        for task in running:
            task.cancel()


if __name__ == "__main__":
    run(main)
