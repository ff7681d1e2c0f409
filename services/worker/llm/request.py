"""What a caller asks of the LLM engine and what comes back."""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from services.common.errors import HeadraceError
from services.common.sampling import SamplingParams, StructuredOutput

__all__ = ["FinishReason", "GenerationRequest", "Logprobs", "SamplingParams", "StructuredOutput", "TokenOutput"]

FinishReason = Literal["stop", "length", "abort"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """One sequence to generate.

    Attributes:
        id: unique among the requests of one engine.
        prompt: token ids, special tokens included.
        index: which of the n sequences of one prompt this is.
        tenant, weight: whose it is, and his share; prompts of different tenants never share KV blocks.
        priority: of one tenant's, higher runs first; equal ones in order of arrival.
        deadline: seconds on the clock that the scheduler is given; the sequence ends with "abort" when it passes.
        resume: output tokens that the caller has already; generation goes on after them.
        source: the prompt as the client gave it, a text or chat messages (role and content), for engines that tokenise
            elsewhere: `prompt` is then empty.
        resume_text: the text that the caller has already, for engines that know no tokens.
    """

    id: str
    prompt: tuple[int, ...]
    params: SamplingParams = field(default_factory=SamplingParams)
    index: int = 0
    tenant: str = ""
    weight: float = 1.0
    priority: int = 0
    deadline: float = math.inf
    resume: tuple[int, ...] = ()
    source: str | tuple[Mapping[str, str], ...] = ""
    resume_text: str = ""

    @property
    def seed(self) -> int:
        """The key of this sequence's random draws, 0 to 2^63-1: a function of the request alone.

        So another worker that continues the request, or a preempted sequence that is run again, draws the same.
        """
        root = self.id if self.params.seed is None else str(self.params.seed)
        digest = hashlib.blake2b(f"{self.index}:{root}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "little") >> 1


@dataclass(frozen=True, slots=True)
class Logprobs:
    """Log probabilities at one position.

    Attributes:
        chosen: that of the token which was drawn.
        rank: its place among all tokens, 1 for the most likely.
        top: (token id, log probability) of the best ones, best first.
    """

    chosen: float
    rank: int
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenOutput:
    """What one step brought to one request.

    Attributes:
        token_ids: new tokens; the caller that has them all can resume elsewhere.
        text: new text; may lag behind the tokens while a character or a possible stop string is incomplete.
        logprobs: one for each new token, if asked for.
        finish_reason: set on the last output of a request, which may bring no token.
        stop_reason: the stop string or the token of `stop_token_ids` that ended it.
        prompt_tokens, cached_tokens, output_tokens: usage up to here; cached ones are those of the prompt that were
            found in the prefix cache; output tokens count resumed ones.
        error: why a request ended with "abort" on our side (its deadline, a fault); None if the caller aborted it.
    """

    id: str
    index: int = 0
    token_ids: tuple[int, ...] = ()
    text: str = ""
    logprobs: tuple[Logprobs, ...] | None = None
    finish_reason: FinishReason | None = None
    stop_reason: str | int | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    error: HeadraceError | None = None
