"""The native engine: a thread that steps, and the event loop's side of it.

event loop   submit, abort ──▶ inbox ──▶ ┐
thread                                   step ─▶ step ─▶ step …
event loop   outputs() ◀── one call for all that a step brought ◀── ┘
"""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from services.common.errors import InvalidArgument
from services.worker.llm import loading
from services.worker.llm.admission import length_limit
from services.worker.llm.options import EngineOptions
from services.worker.llm.port import EngineStats
from services.worker.llm.request import GenerationRequest, TokenOutput
from services.worker.llm.runner import open_runner
from services.worker.llm.stepping import Stepper


async def open_engine(folder: Path, options: EngineOptions) -> "Engine":
    """Loads a Hugging Face folder off the event loop and starts its engine.

    Raises:
        FailedPrecondition, InvalidArgument: see loading.load.
    """
    thread = ThreadPoolExecutor(1, thread_name_prefix="llm-engine")
    try:
        loop = asyncio.get_running_loop()
        stepper, device = await loop.run_in_executor(thread, _load, folder, options)
        return Engine(stepper, thread, loop, device)
    except BaseException:
        thread.shutdown(wait=False)
        raise


def _load(folder: Path, options: EngineOptions) -> tuple[Stepper, str]:
    """On the engine's thread, whose torch settings these are; also where the model is."""
    if options.threads:
        torch.set_num_threads(options.threads)
    runner = open_runner(folder, options)
    return Stepper(runner, loading.load_tokenizer(folder)), runner.device


class Engine:
    """Implements TextEngine. Made by `open_engine` on the event loop that uses it.

    Args:
        thread: one worker; the stepper is touched there only.

    Attributes:
        device: where the model is, "cpu" or "cuda:0".
    """

    def __init__(
        self, stepper: Stepper, thread: ThreadPoolExecutor, loop: asyncio.AbstractEventLoop, device: str = "cpu"
    ) -> None:
        self._stepper, self._thread, self._loop = stepper, thread, loop
        self._config = stepper.scheduler.config
        self._stats = stepper.stats()
        self.device = device
        self._ids: set[str] = set()
        self._wake = threading.Condition()
        self._inbox: list[Callable[[], list[TokenOutput]]] = []
        self._closed = False
        self._outputs: asyncio.Queue[list[TokenOutput] | Exception | None] = asyncio.Queue()
        self._running = loop.run_in_executor(thread, self._run)

    def submit(self, request: GenerationRequest) -> None:
        """See the port."""
        length_limit(request, self._config)
        if request.id in self._ids:
            raise InvalidArgument(f"a request with id {request.id!r} is under way; ids must be unique")
        self._ids.add(request.id)
        self._send(lambda: self._stepper.submit(request))

    def abort(self, request_id: str) -> None:
        """See the port."""
        if request_id in self._ids:
            self._ids.remove(request_id)
            self._send(lambda: self._stepper.abort(request_id))

    async def outputs(self) -> AsyncIterator[list[TokenOutput]]:
        """See the port."""
        while (outputs := await self._outputs.get()) is not None:
            if isinstance(outputs, Exception):
                raise outputs
            yield outputs

    def stats(self) -> EngineStats:
        """As of the last step."""
        return self._stats

    async def close(self) -> None:
        """Lets the step under way end, drops what is unfinished, and ends `outputs`."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        await self._running
        self._thread.shutdown(wait=False)
        self._outputs.put_nowait(None)

    def _send(self, action: Callable[[], list[TokenOutput]]) -> None:
        with self._wake:
            self._inbox.append(action)
            self._wake.notify()

    def _deliver(self, outputs: list[TokenOutput] | Exception, stats: EngineStats) -> None:
        """On the event loop. What was aborted while its step ran comes out no more."""
        self._stats = stats
        if isinstance(outputs, list):
            outputs = [output for output in outputs if output.id in self._ids]
            self._ids.difference_update(output.id for output in outputs if output.finish_reason is not None)
        if outputs:
            self._outputs.put_nowait(outputs)

    def _run(self) -> None:
        """The thread: steps until it is closed, and sleeps while there is nothing to do."""
        try:
            while (actions := self._next_actions()) is not None:
                outputs = [output for action in actions for output in action()]
                outputs.extend(self._stepper.step(time.monotonic()))
                self._loop.call_soon_threadsafe(self._deliver, outputs, self._stepper.stats())
        except Exception as error:
            self._loop.call_soon_threadsafe(self._deliver, error, self._stepper.stats())
        finally:
            self._stepper.close()

    def _next_actions(self) -> list[Callable[[], list[TokenOutput]]] | None:
        """What came in; waits for it while no sequence is there. None when closed."""
        with self._wake:
            idle = not len(self._stepper.scheduler)
            self._wake.wait_for(lambda: self._closed or self._inbox or not idle)
            actions, self._inbox = self._inbox, []
            return None if self._closed else actions
