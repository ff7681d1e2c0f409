"""The gateway as a process: `python -m services.gateway`."""

import asyncio
import sys

from services.common.errors import HeadraceError
from services.common.lifecycle import run
from services.gateway.app import gateway
from services.gateway.hosts.launcher import run_host
from services.gateway.settings import GatewaySettings


async def main(stop: asyncio.Event) -> None:
    """Serves until told to stop, then drains."""
    settings = GatewaySettings()
    try:
        await run_host("gateway", settings, gateway, "services.gateway.envoy_app:app", stop)
    except HeadraceError as error:
        sys.exit(f"gateway: {error}")


if __name__ == "__main__":
    run(main)
