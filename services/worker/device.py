"""The device: a thread that runs batches, and the turn-taking of the models that share it."""

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from services.worker.turns import Turns

T = TypeVar("T")

# Most that a package may ask for.
MOST_INSTANCES = 64


class Device:
    """Batches run one at a time: callers' before the background's, by what tenants have had, then in the lanes' order.

    Who holds the turn may run several of his own, where the model's package asks for it (`instances`).

    A lane forms its batch only when it holds the turn: until then the batch gathers. Models are loaded beside it, at
    most `loads` at a time: who loads holds `loading`.
    """

    def __init__(self, threads: int, loads: int = 1) -> None:
        self.threads = threads
        self.turns = Turns()
        self.loading = asyncio.Semaphore(loads)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="device")
        # Made when they are needed.
        self._threads = ThreadPoolExecutor(MOST_INSTANCES, thread_name_prefix="instance")
        self._loaders = ThreadPoolExecutor(loads, thread_name_prefix="loader")

    async def run(self, function: Callable[[], T], *, alone: bool = True) -> T:
        """Runs a function on the device's thread; unless `alone`, on a thread beside others of its model's."""
        threads = self._thread if alone else self._threads
        return await asyncio.get_running_loop().run_in_executor(threads, function)

    async def load(self, function: Callable[[], T]) -> T:
        """Runs a function beside the device's thread: reading a model in does not hold up those that run."""
        return await asyncio.get_running_loop().run_in_executor(self._loaders, function)

    def close(self) -> None:
        """Lets the running batch and load finish and ends the threads."""
        self._thread.shutdown(wait=True)
        self._threads.shutdown(wait=True)
        self._loaders.shutdown(wait=True)


def resident_bytes() -> int:
    """What the process holds in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
