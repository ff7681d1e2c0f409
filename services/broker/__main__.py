"""The embedded broker as a process: `python -m services.broker`. For one machine; messages live in memory."""

import asyncio
import sys

from grpc import aio

from headrace.v1.broker_pb2_grpc import add_BrokerServiceServicer_to_server
from services.broker.server import BrokerServer
from services.common.errors import InvalidArgument
from services.common.lifecycle import run
from services.common.rpc import serving
from services.common.settings import ServiceSettings
from services.common.telemetry.setup import start
from services.common.tls import open_tls


class BrokerSettings(ServiceSettings):
    """HEADRACE_LISTEN: host:port; port 0 picks one."""

    listen: str = "127.0.0.1:8004"


async def main(stop: asyncio.Event) -> None:
    """Serves until told to stop."""
    settings = BrokerSettings()
    server = BrokerServer()

    def register(grpc_server: aio.Server) -> None:
        add_BrokerServiceServicer_to_server(server, grpc_server)

    try:
        async with open_tls(settings) as tls:
            with start("broker", settings.listen, settings, tls):
                served = ["headrace.v1.BrokerService"]
                async with serving(settings.listen, served, register, grace=0.2, tls=tls) as port:
                    print(f"ready broker {settings.listen.rpartition(':')[0]}:{port}", flush=True)
                    await stop.wait()
    except InvalidArgument as error:
        sys.exit(f"broker: {error}")


if __name__ == "__main__":
    run(main)
