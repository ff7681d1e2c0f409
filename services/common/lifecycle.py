"""Starting and stopping a service process: signals become an event, and the event ends the service's TaskGroup."""

import asyncio
import signal
from collections.abc import Awaitable, Callable

import uvloop

from services.common.garbage import freeze_what_is_loaded


def run(service: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    """Runs `service(stop)` under uvloop until it returns; SIGTERM and SIGINT set `stop`.

    The service finishes what it owes after `stop` is set and returns; the process then exits with 0. A second signal
    ends it at once with the usual status of that signal.
    """

    async def main() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()

        def on_signal(number: signal.Signals) -> None:
            stop.set()
            loop.remove_signal_handler(number)

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, on_signal, number)
        freeze_what_is_loaded()
        await service(stop)

    uvloop.run(main())
