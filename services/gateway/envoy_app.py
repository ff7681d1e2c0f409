"""What Envoy loads: the gateway as an ASGI application. Nothing is built before Envoy begins its lifespan."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.common.tls import open_tls
from services.gateway.app import gateway
from services.gateway.application import Application
from services.gateway.hosts.asgi import GrpcAsgiApp
from services.gateway.settings import GatewaySettings


@asynccontextmanager
async def _factory() -> AsyncIterator[Application]:
    settings = GatewaySettings()
    async with open_tls(settings) as tls, gateway(settings, "envoy", settings.advertised(), tls) as application:
        yield application


app = GrpcAsgiApp(_factory, lambda: GatewaySettings().max_request_bytes)
