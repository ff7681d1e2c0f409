"""Structured output: at each position, the tokens that keep the text within its grammar, by llguidance.

A sequence's matcher follows its output tokens. It belongs to the sequence and not to its row: a preempted one keeps it,
and one that is resumed here is followed from its first token.
"""

import json
from collections.abc import Sequence as Run
from dataclasses import dataclass

import llguidance
import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

from services.common.errors import Internal, InvalidArgument
from services.worker.llm.request import StructuredOutput
from services.worker.llm.sequence import Sequence

_ANY_OBJECT = '{"type": "object"}'


@dataclass(slots=True)
class _Matcher:
    """A grammar's state after the first `consumed` output tokens."""

    matcher: llguidance.LLMatcher
    consumed: int = 0


class Grammars:
    """The grammars of the sequences under way.

    Args:
        vocabulary: the model's; may be larger than the tokenizer's.
        eos_token_ids: end tokens, which come when the text is complete.
    """

    def __init__(self, tokenizer: Tokenizer, vocabulary: int, eos_token_ids: frozenset[int]) -> None:
        self._tokenizer = tokenizer
        self._vocabulary = vocabulary
        self._eos = sorted(eos_token_ids)
        self._lexicon: llguidance.LLTokenizer | None = None
        self._matchers: dict[str, _Matcher] = {}

    def admit(self, request_id: str, structured: StructuredOutput) -> None:
        """Compiles what a request asks for.

        Raises:
            InvalidArgument: the schema or expression is none, or none that llguidance knows; or the model cannot end.
        """
        if not self._eos:
            raise InvalidArgument("structured output needs a model with an end token; this one's folder names none")
        if self._lexicon is None:  # a second of work for a large vocabulary, and few ask for it
            size = max(self._vocabulary, self._tokenizer.get_vocab_size())
            self._lexicon = llguidance.LLTokenizer(self._tokenizer.to_str(), n_vocab=size, eos_token=self._eos)
        expected = "a regular expression" if structured.regex is not None else "a JSON Schema"
        try:
            grammar = _grammar(structured)
        except ValueError as error:
            raise InvalidArgument(f"structured output: {error}; expected {expected}") from error
        matcher = llguidance.LLMatcher(self._lexicon, grammar)
        if matcher.is_error():
            raise InvalidArgument(f"structured output: {matcher.get_error()}; expected {expected}")
        self._matchers[request_id] = _Matcher(matcher)

    def release(self, request_id: str) -> None:
        """The sequence is over; unknown ids are fine."""
        self._matchers.pop(request_id, None)

    def allowed(self, sequences: Run[Sequence], vocabulary: int) -> Tensor | None:
        """What may come next: bool [sequences, vocabulary], on the host; None: anything, for all of them."""
        matchers = [self._matchers.get(sequence.id) for sequence in sequences]
        if not any(matchers):
            return None
        words = -(-max(self._vocabulary, vocabulary) // 32)
        masks = np.full((len(sequences), words), -1, np.int32)
        for i, (sequence, matcher) in enumerate(zip(sequences, matchers, strict=True)):
            if matcher is not None:
                self._fill(sequence, matcher, masks[i])
        bits = np.unpackbits(masks.view(np.uint8), axis=-1, bitorder="little")
        return torch.from_numpy(bits[:, :vocabulary].astype(np.bool_))

    def _fill(self, sequence: Sequence, state: _Matcher, mask: NDArray[np.int32]) -> None:
        output = sequence.output_tokens
        news = output[state.consumed :]
        if news and not state.matcher.consume_tokens(news):
            raise Internal(f"request {sequence.id}: its output left its grammar: {state.matcher.get_error()}")
        state.consumed = len(output)
        found = np.frombuffer(state.matcher.compute_bitmask(), np.int32)
        mask[:] = 0
        mask[: len(found)] = found[: len(mask)]


def _grammar(structured: StructuredOutput) -> str:
    """As llguidance has it. Raises ValueError."""
    known = llguidance.LLMatcher
    if structured.regex is not None:
        return known.grammar_from_regex(structured.regex)
    if structured.choice:
        return known.grammar_from_lark(_one_of(structured.choice))
    return known.grammar_from_json_schema(structured.json or _ANY_OBJECT)


def _one_of(texts: tuple[str, ...]) -> str:
    """Lark's strings are written as JSON's."""
    return "start: " + " | ".join(json.dumps(text, ensure_ascii=False) for text in texts)
