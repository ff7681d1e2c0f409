"""The gateway put together: routes from the registry, requests to the broker, replies from the workers."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from services.common.broker.connect import connect, messaging_system
from services.common.broker.embedded.client import EmbeddedBroker
from services.common.broker.embedded.host import BrokerHost
from services.common.broker.port import Broker
from services.common.catalog_watch import CatalogWatch
from services.common.rpc import channel
from services.common.telemetry.setup import Telemetry, start
from services.common.tenants.access import Access, open_access
from services.common.tls import Tls
from services.gateway.application import Application, AsgiApp
from services.gateway.calls import MethodTable, Stream
from services.gateway.console.jobs import Presence, jobs_router
from services.gateway.console.pages import console_router
from services.gateway.console.picture import live
from services.gateway.demand import report_demand
from services.gateway.dispatch.broker_here import BrokerHere
from services.gateway.dispatch.links import ReplyChannel
from services.gateway.dispatch.pending import PendingTable
from services.gateway.dispatch.queue_backend import QueueBackend
from services.gateway.door import guarded
from services.gateway.http import http_application
from services.gateway.observation import Observer
from services.gateway.openai.batches import batches_router
from services.gateway.openai.files import files_router
from services.gateway.openai.jobs import jobs_behind
from services.gateway.openai.routes import openai_router
from services.gateway.protocol.repository import RegistryControl
from services.gateway.protocol.service import ProtocolService, model_infer
from services.gateway.reporting import OutcomeReporter
from services.gateway.routes import Routes
from services.gateway.settings import GatewaySettings
from services.gateway.shadows import Shadows
from services.gateway.status import StatusService
from services.gateway.text.service import TextGeneration

SYNC_SECONDS = 30.0
START_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Gateway:
    """Implements Application."""

    methods: MethodTable
    http: AsgiApp
    watch: CatalogWatch
    backend: QueueBackend

    def ready(self) -> bool:
        """The models are known and the broker is there."""
        return self.watch.synced.is_set() and self.backend.ready()


@asynccontextmanager
async def gateway(settings: GatewaySettings, front: str, advertise: str, tls: Tls | None) -> AsyncIterator[Application]:
    """A running gateway.

    Args:
        front: "envoy" or "grpc", for the status.
        advertise: host:port at which workers reach this gateway, with the real port.

    Raises:
        Unavailable: the broker cannot be reached.
        InvalidArgument: the tenants file is wrong.
    """
    gateway_id = secrets.token_hex(8)
    with start("gateway", gateway_id, settings, tls) as telemetry:
        async with (
            open_access(settings.tenants) as access,
            _gateway(
                settings, front, advertise, gateway_id, telemetry=telemetry, access=access, tls=tls
            ) as application,
        ):
            yield application


@asynccontextmanager
async def _gateway(
    settings: GatewaySettings,
    front: str,
    advertise: str,
    gateway_id: str,
    *,
    telemetry: Telemetry,
    access: Access | None,
    tls: Tls | None,
) -> AsyncIterator[Gateway]:
    token = secrets.token_urlsafe(24)
    observer, pending = Observer(telemetry), PendingTable()
    routes = Routes(on_gone=observer.forget)
    replies = ReplyChannel(pending, gateway_id, token, on_claim=observer.claimed)
    restored = asyncio.Event()
    restored.set()
    backends: list[QueueBackend] = []

    def on_restored() -> None:
        for backend in backends:
            backend.broker_restored()

    broker, shared = await _broker(settings, f"gateway {gateway_id}", on_restored, tls)
    backend = QueueBackend(
        broker,
        pending,
        replies,
        reply_to=f"{advertise}/{gateway_id}/{token}",
        inline_bytes=settings.inline_bytes,
        restored=restored,
        on_republished=observer.republished,
        system="headrace" if settings.broker_token else messaging_system(settings.broker),
    )
    backends.append(backend)
    async with channel(settings.registry, tls) as registry, jobs_behind(settings.jobs, tls) as jobs:
        watch = CatalogWatch(registry, routes)

        def ready() -> bool:
            return watch.synced.is_set() and backend.ready()

        shadows = Shadows(backend, observer.instruments)
        protocol = ProtocolService(
            routes, backend, observer, ready=ready, control=RegistryControl(registry), shadows=shadows
        ).methods()
        status = StatusService(
            gateway_id,
            front,
            routes=routes,
            backend=backend,
            observer=observer,
            shadows=shadows,
            registry=registry,
            registry_connected=lambda: watch.connected,
        )
        text = TextGeneration(routes, backend, observer)
        methods = {
            **protocol,
            **text.methods(),
            **status.methods(),
            **shared,
            "/headrace.v1.ReplyService/Attach": Stream(replies.attach),
        }
        outcomes = OutcomeReporter(gateway_id, routes, observer, shadows, registry)
        picture = live(status, Presence(jobs, settings.jobs), settings.autoscaler, tls)
        async with backend.running(), shadows.running(), picture as feed:
            watcher = asyncio.create_task(watch.run(), name="catalogue watch")
            demand = report_demand(registry, gateway_id, pending, backend.unserved)
            reporter = asyncio.create_task(demand, name="demand report")
            reporting = asyncio.create_task(outcomes.run(), name="outcomes")
            try:
                await asyncio.wait_for(watch.synced.wait(), SYNC_SECONDS)
                openai = openai_router(text, routes, model_infer(protocol)), files_router(jobs), batches_router(jobs)
                routers = *openai, jobs_router(jobs), console_router(feed)
                http = http_application(protocol, *routers, access=access, most_bytes=settings.max_request_bytes)
                yield Gateway(guarded(methods, access), http, watch, backend)
            finally:
                replies.drain()
                watcher.cancel()
                reporter.cancel()
                reporting.cancel()
    await broker.close()


async def _broker(
    settings: GatewaySettings, name: str, on_restored: Callable[[], None], tls: Tls | None
) -> tuple[Broker, MethodTable]:
    """The broker, and the methods by which others reach it where it lives here. Raises Unavailable, InvalidArgument."""
    if not settings.broker_token:
        return await connect(settings.broker, name=name, on_restored=on_restored, tls=tls), {}
    host = BrokerHost()
    broker = EmbeddedBroker("this gateway", host.attach)
    await broker.start(START_SECONDS)
    return broker, BrokerHere(host, settings.broker_token).methods()
