"""A language model in memory: its engine, and what makes token ids of clients' prompts."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

from headrace.v1.text_generation_pb2 import GenerateRequest
from services.worker.llm.port import TextEngine


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the engine is given: token ids, or the client's own words where the engine tokenises elsewhere."""

    token_ids: tuple[int, ...] = ()
    source: str | tuple[dict[str, str], ...] = ""


class Prompts(Protocol):
    """Called from one thread at a time."""

    def read(self, request: GenerateRequest) -> Prompt:
        """Tokenises, and applies the chat template. Blocks. Raises InvalidArgument."""

    def piece(self, token_id: int) -> str:
        """A token alone, as text."""


@dataclass(slots=True, eq=False)
class TextModel:
    """What a text lane loads."""

    engine: TextEngine
    prompts: Prompts
    device: str
    _thread: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, thread_name_prefix="prompts"))

    async def prompt(self, request: GenerateRequest) -> Prompt:
        """The request's prompt, made off the event loop. Raises InvalidArgument."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self.prompts.read, request)

    async def close(self) -> None:
        """Ends what runs and frees the memory."""
        self._thread.shutdown(wait=False)
        await self.engine.close()
