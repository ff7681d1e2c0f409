"""What Envoy loads for a single replica."""

from contextlib import AbstractAsyncContextManager

from services.gateway.application import Application
from services.gateway.hosts.asgi import GrpcAsgiApp
from services.single.app import SingleSettings, single


def _factory() -> AbstractAsyncContextManager[Application]:
    settings = SingleSettings()
    return single(settings, "envoy", settings.listen)


app = GrpcAsgiApp(_factory, lambda: SingleSettings().max_request_bytes)
