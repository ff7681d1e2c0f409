"""The port of an engine that generates text: what a worker's stream lane drives, whatever computes the tokens.

Adapters: the native engine, vLLM, and an OpenAI-compatible server elsewhere.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from services.worker.llm.request import GenerationRequest, TokenOutput

__all__ = ["EngineStats", "GenerationRequest", "TextEngine", "TokenOutput"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStats:
    """What an engine does now, and counts since its start. What it cannot know stays 0.

    Attributes:
        running, waiting: sequences.
        kv_blocks_used, kv_blocks_total: blocks that sequences hold (not those kept for their prefix only), and all.
        prefix_tokens_hit, prefix_tokens_asked: prompt tokens found in the prefix cache, of those looked up.
        preemptions: sequences that lost their blocks and were computed again.
    """

    running: int = 0
    waiting: int = 0
    kv_blocks_used: int = 0
    kv_blocks_total: int = 0
    prefix_tokens_hit: int = 0
    prefix_tokens_asked: int = 0
    preemptions: int = 0


class TextEngine(Protocol):
    """Runs many sequences at a time. Called on the event loop; nothing here blocks."""

    def submit(self, request: GenerationRequest) -> None:
        """Takes a sequence on. Its outputs come by `outputs`, the last one with a finish reason.

        What is in `resume` was passed on before: the engine goes on after it and never gives it again.

        Raises:
            InvalidArgument: it can never run here; the message says why.
        """

    def abort(self, request_id: str) -> None:
        """Nobody wants it any more: frees its memory by the next step. No output need follow; unknown ids are fine."""

    def outputs(self) -> AsyncIterator[list[TokenOutput]]:
        """What each step brought, all sequences together. Iterated once, by one task; ends after `close`.

        An engine that cannot go on raises here; what it was running is then redelivered to another worker.
        """

    def stats(self) -> EngineStats:
        """As it is now; cheap."""

    async def close(self) -> None:
        """Ends everything and frees the memory."""
