"""A single replica as a process: `python -m services.single`, or `headrace serve NAME_OR_PATH`."""

import asyncio
import sys

from services.common.errors import HeadraceError, InvalidArgument, NotFound, Unavailable
from services.common.lifecycle import run
from services.gateway.hosts.launcher import run_host
from services.single.app import SingleSettings, single


async def main(stop: asyncio.Event) -> None:
    """Serves until told to stop, then drains."""
    settings = SingleSettings()
    try:
        await run_host("single", settings, single, "services.single.envoy_app:app", stop)
    except HeadraceError as error:
        print(f"headrace serve: {error}", file=sys.stderr)
        sys.exit(exit_code(error))


def exit_code(error: HeadraceError) -> int:
    """As the command line has them: 2 bad input, 3 nobody there, 1 anything else."""
    if isinstance(error, InvalidArgument | NotFound):
        return 2
    return 3 if isinstance(error, Unavailable) else 1


if __name__ == "__main__":
    run(main)
