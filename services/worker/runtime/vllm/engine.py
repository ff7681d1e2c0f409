"""vLLM's async engine as a TextEngine.

The tokens that a caller has of a generation which another worker began become the end of the prompt: greedy ones go on
as they would have, drawn ones with new draws, since vLLM's do not hang on the position.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from typing import Any, Protocol

from services.common.errors import DeadlineExceeded, HeadraceError, InvalidArgument, ModelFailed
from services.worker.llm.detokenise import Decoder
from services.worker.llm.port import EngineStats, GenerationRequest, TokenOutput
from services.worker.runtime.vllm.figures import Figures
from services.worker.runtime.vllm.guardian import Guardian
from services.worker.runtime.vllm.sequence import Story, sampling_arguments


class Llm(Protocol):
    """What is used of vLLM's AsyncLLM."""

    @property
    def errored(self) -> bool:
        """It has died."""

    def generate(
        self, prompt: Any, sampling_params: Any, request_id: str, *, priority: int = 0
    ) -> AsyncGenerator[Any, None]:
        """RequestOutputs with what is new; cancelling it aborts."""

    def shutdown(self) -> None:
        """Ends its processes. Blocks."""


class VllmEngine:
    """Implements TextEngine.

    Args:
        decoders: indexed by `skip_special_tokens`.
        parameters: makes vLLM's SamplingParams of `sampling_arguments`.
        refusals: what vLLM raises for requests that are at fault.

    Attributes:
        device: "cpu" or "cuda".
    """

    def __init__(
        self,
        llm: Llm,
        decoders: Sequence[Decoder],
        *,
        parameters: Callable[[dict[str, Any]], Any],
        refusals: tuple[type[Exception], ...],
        max_model_len: int,
        figures: Figures,
        guardian: Guardian | None = None,
        device: str = "cpu",
    ) -> None:
        self.device = device
        self._llm, self._decoders = llm, decoders
        self._parameters, self._refusals = parameters, refusals
        self._max_model_len = max_model_len
        self._figures, self._guardian = figures, guardian
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._gathered: list[TokenOutput] = []
        self._broken: Exception | None = None
        self._wake = asyncio.Event()
        self._closed = False

    def submit(self, request: GenerationRequest) -> None:
        """See the port."""
        if request.id in self._tasks:
            raise InvalidArgument(f"a request with id {request.id!r} is under way; ids must be unique")
        if len(request.prompt) >= self._max_model_len:
            raise InvalidArgument(
                f"the prompt has {len(request.prompt)} tokens; the model's context holds {self._max_model_len}, and at"
                " least one must be left to generate"
            )
        parameters = self._parameters(sampling_arguments(request))
        task = asyncio.create_task(self._run(request, parameters), name=f"vLLM {request.id}")
        self._tasks[request.id] = task
        task.add_done_callback(lambda done: self._forget(request.id, done))

    def abort(self, request_id: str) -> None:
        """See the port; cancelling the task makes vLLM abort."""
        if (task := self._tasks.pop(request_id, None)) is not None:
            task.cancel()

    async def outputs(self) -> AsyncIterator[list[TokenOutput]]:
        """What has gathered since the last turn."""
        while not self._closed:
            await self._wake.wait()
            self._wake.clear()
            gathered, self._gathered = self._gathered, []
            if gathered:
                yield gathered
            if self._broken is not None:
                raise self._broken

    def stats(self) -> EngineStats:
        """As of the last step."""
        return self._figures.stats()

    async def close(self) -> None:
        """Aborts everything and ends vLLM's processes."""
        self._closed = True
        self._wake.set()
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.to_thread(self._llm.shutdown)
        if self._guardian is not None:
            self._guardian.dismiss()

    def _forget(self, request_id: str, task: asyncio.Task[None]) -> None:
        """It ended; one that was aborted may have a successor of its id."""
        if self._tasks.get(request_id) is task:
            del self._tasks[request_id]

    async def _run(self, request: GenerationRequest, parameters: Any) -> None:
        try:
            async with asyncio.timeout(_seconds_left(request.deadline)):
                await self._stream(request, parameters)
        except TimeoutError:
            self._abandon(request, DeadlineExceeded("the deadline passed before the generation was complete"))
        except HeadraceError as error:
            self._abandon(request, error)
        except Exception as error:
            if self._llm.errored:  # whoever iterates `outputs` loads it anew
                self._broken = error
                self._wake.set()
            elif isinstance(error, self._refusals):
                self._abandon(request, InvalidArgument(f"vLLM refuses this request: {error}"))
            else:
                self._abandon(request, ModelFailed(f"vLLM failed on this request: {error}"))

    async def _stream(self, request: GenerationRequest, parameters: Any) -> None:
        story = Story(request, self._decoders[request.params.skip_special_tokens])
        if story.over():
            self._give(story.end())
            return
        prompt: dict[str, Any] = {"prompt_token_ids": [*request.prompt, *request.resume]}
        if request.tenant:
            prompt["cache_salt"] = request.tenant
        # vLLM serves low numbers first.
        generation = self._llm.generate(prompt, parameters, request.id, priority=-request.priority)
        async with aclosing(generation) as outputs:
            async for output in outputs:
                self._give(story.tell(output))
                if story.over():
                    return
        raise ModelFailed("vLLM ended the generation without saying why")

    def _give(self, output: TokenOutput) -> None:
        self._gathered.append(output)
        self._wake.set()

    def _abandon(self, request: GenerationRequest, error: HeadraceError) -> None:
        self._give(TokenOutput(id=request.id, index=request.index, finish_reason="abort", error=error))


def _seconds_left(deadline: float) -> float | None:
    """From a time on the monotonic clock."""
    return None if deadline == float("inf") else max(0.0, deadline - time.monotonic())
