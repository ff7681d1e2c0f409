"""What a caller asks of the LLM engine and what comes back. Names, defaults and ranges are vLLM's `SamplingParams`."""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from services.common.errors import HeadraceError, InvalidArgument

FinishReason = Literal["stop", "length", "abort"]


@dataclass(frozen=True, slots=True)
class StructuredOutput:
    """What the text must match: exactly one of these.

    Attributes:
        json: a JSON Schema, as JSON text.
        json_object: any JSON object.
    """

    json: str | None = None
    json_object: bool = False

    def __post_init__(self) -> None:
        if (self.json is not None) == self.json_object:
            raise InvalidArgument("structured output needs exactly one of json (a JSON Schema) and json_object")


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How tokens are drawn and when a sequence ends.

    Attributes:
        n: sequences for one prompt; whoever submits makes n requests of them, with index 0 to n-1.
        temperature: 0 is greedy.
        top_k: 0 or -1: all tokens.
        seed: None: one is derived from the request's id (see `GenerationRequest.seed`).
        stop: strings that end the text; left out of it unless `include_stop_str_in_output`.
        stop_token_ids: tokens that end the sequence, beside the model's own end tokens.
        max_tokens: most tokens to generate; None: what the context and the KV pool have room for.
        min_tokens: no end token and no stop string counts before so many.
        logprobs: log probabilities of so many best tokens beside the drawn one; None: none at all.

    Raises:
        InvalidArgument: a value is out of range; the message names it and the range.
    """

    n: int = 1
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=lambda: MappingProxyType({}))
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    max_tokens: int | None = 16
    min_tokens: int = 0
    logprobs: int | None = None
    skip_special_tokens: bool = True
    include_stop_str_in_output: bool = False
    structured: StructuredOutput | None = None

    def __post_init__(self) -> None:
        _check("n", self.n, self.n >= 1, "at least 1")
        _check("temperature", self.temperature, 0 <= self.temperature < math.inf, "0 (greedy) or more")
        _check("top_k", self.top_k, self.top_k >= -1, "at least 1, or 0 or -1 for all tokens")
        _check("top_p", self.top_p, 0 < self.top_p <= 1, "over 0 and at most 1")
        _check("min_p", self.min_p, 0 <= self.min_p <= 1, "from 0 to 1")
        penalty = self.repetition_penalty
        _check("repetition_penalty", penalty, 0 < penalty < math.inf, "over 0 (1 is none)")
        _check("presence_penalty", self.presence_penalty, -2 <= self.presence_penalty <= 2, "from -2 to 2")
        _check("frequency_penalty", self.frequency_penalty, -2 <= self.frequency_penalty <= 2, "from -2 to 2")
        _check("logprobs", self.logprobs, self.logprobs is None or self.logprobs >= 0, "0 or more")
        _check("max_tokens", self.max_tokens, self.max_tokens is None or self.max_tokens >= 1, "at least 1")
        most = math.inf if self.max_tokens is None else self.max_tokens
        _check("min_tokens", self.min_tokens, 0 <= self.min_tokens <= most, "from 0 to max_tokens")
        _check("stop", self.stop, all(self.stop), "strings that are not empty")
        biases = self.logit_bias.values()
        _check("logit_bias", dict(self.logit_bias), all(-100 <= b <= 100 for b in biases), "from -100 to 100 each")

    @property
    def greedy(self) -> bool:
        """Whether the best token is taken and nothing is drawn."""
        return self.temperature == 0


def _check(name: str, value: object, good: bool, expected: str) -> None:
    if not good:
        raise InvalidArgument(f"{name} is {value!r}; expected {expected}")


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """One sequence to generate.

    Attributes:
        id: unique among the requests of one engine.
        prompt: token ids, special tokens included.
        index: which of the n sequences of one prompt this is.
        tenant: whose it is; prompts of different tenants never share KV blocks.
        priority: higher runs first; equal ones in order of arrival.
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
