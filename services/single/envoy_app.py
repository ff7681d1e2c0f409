"""What Envoy loads for a single replica."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.common.tls import open_tls
from services.gateway.application import Application
from services.gateway.hosts.asgi import GrpcAsgiApp
from services.single.app import SingleSettings, single


@asynccontextmanager
async def _factory() -> AsyncIterator[Application]:
    settings = SingleSettings()
    async with open_tls(settings) as tls, single(settings, "envoy", settings.listen, tls) as application:
        yield application


app = GrpcAsgiApp(_factory, lambda: SingleSettings().max_request_bytes)
