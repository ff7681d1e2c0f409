"""The embedded broker as a process: `python -m services.broker`. For one machine; messages live in memory."""

import asyncio

from grpc import aio

from headrace.v1.broker_pb2_grpc import add_BrokerServiceServicer_to_server
from services.broker.server import BrokerServer
from services.common.lifecycle import run
from services.common.rpc import serving
from services.common.settings import ServiceSettings
from services.common.telemetry.setup import start


class BrokerSettings(ServiceSettings):
    """HEADRACE_LISTEN: host:port; port 0 picks one."""

    listen: str = "127.0.0.1:8004"


async def main(stop: asyncio.Event) -> None:
    """Serves until told to stop."""
    settings = BrokerSettings()
    server = BrokerServer()

    def register(grpc_server: aio.Server) -> None:
        add_BrokerServiceServicer_to_server(server, grpc_server)

    with start("broker", settings.listen, settings):
        async with serving(settings.listen, ["headrace.v1.BrokerService"], register, grace=0.2) as port:
            print(f"ready broker {settings.listen.rpartition(':')[0]}:{port}", flush=True)
            await stop.wait()


if __name__ == "__main__":
    run(main)
