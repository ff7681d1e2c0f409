"""The device: one thread that runs batches, and the turn-taking of the models that share it."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class Device:
    """Batches run one at a time, in the order in which lanes asked for their turn.

    A lane forms its batch only when it holds `turn`: until then the batch gathers.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.turn = asyncio.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="device")

    async def run(self, function: Callable[[], T]) -> T:
        """Runs a function on the device's thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, function)

    def close(self) -> None:
        """Lets the running batch finish and ends the thread."""
        self._thread.shutdown(wait=True)
