"""How tokens are drawn, as a caller may ask for it. Names, defaults and ranges are vLLM's `SamplingParams`.

Gateways check with it what workers run by it. Pure.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from services.common.errors import InvalidArgument


@dataclass(frozen=True, slots=True)
class StructuredOutput:
    """What the text must match: exactly one of these.

    Attributes:
        json: a JSON Schema, as JSON text.
        json_object: any JSON object.
        regex: a regular expression, which the whole text matches.
        choice: some texts.
    """

    json: str | None = None
    json_object: bool = False
    regex: str | None = None
    choice: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if (self.json is not None) + self.json_object + (self.regex is not None) + bool(self.choice) != 1:
            raise InvalidArgument(
                "structured output needs exactly one of json (a JSON Schema), json_object, regex, choice"
            )
        if not all(self.choice):
            raise InvalidArgument("choice has an empty text; expected texts of at least one character")

    def named(self) -> dict[str, Any]:
        """By vLLM's names."""
        if self.json is not None:
            return {"json": self.json}
        if self.regex is not None:
            return {"regex": self.regex}
        return {"choice": list(self.choice)} if self.choice else {"json_object": True}


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
