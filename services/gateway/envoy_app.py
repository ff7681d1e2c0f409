"""What Envoy loads: the gateway as an ASGI application. Nothing is built before Envoy begins its lifespan."""

from contextlib import AbstractAsyncContextManager

from services.gateway.app import gateway
from services.gateway.application import Application
from services.gateway.hosts.asgi import GrpcAsgiApp
from services.gateway.settings import GatewaySettings


def _factory() -> AbstractAsyncContextManager[Application]:
    settings = GatewaySettings()
    return gateway(settings, "envoy", settings.advertised())


app = GrpcAsgiApp(_factory, lambda: GatewaySettings().max_request_bytes)
