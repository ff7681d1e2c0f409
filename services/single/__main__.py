"""A single replica as a process: `python -m services.single`, or `headrace serve NAME_OR_PATH`."""

import asyncio
import sys

from services.common.errors import HeadraceError
from services.common.lifecycle import run
from services.gateway.hosts.launcher import run_host
from services.single.app import SingleSettings, single


async def main(stop: asyncio.Event) -> None:
    """Serves until told to stop, then drains."""
    settings = SingleSettings()
    try:
        await run_host("single", settings, single, "services.single.envoy_app:app", stop)
    except HeadraceError as error:
        sys.exit(f"headrace serve: {error}")


if __name__ == "__main__":
    run(main)
