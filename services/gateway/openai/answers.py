"""Pieces of text as OpenAI's clients read them: whole, or a chunk of a stream. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from headrace.v1.text_generation_pb2 import (
    FINISH_REASON_LENGTH,
    FINISH_REASON_STOP,
    TextChunk,
    TokenLogprob,
    TokenLogprobs,
    Usage,
)

_REASONS = {FINISH_REASON_STOP: "stop", FINISH_REASON_LENGTH: "length"}


@dataclass(frozen=True, slots=True)
class Head:
    """What every answer and every chunk of it begins with."""

    id: str
    created: int
    model: str

    def around(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        """The object about some choices."""
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model, "choices": choices}


class Form(Protocol):
    """How one endpoint writes its answers."""

    prefix: str
    whole: str
    part: str

    def choice(self, chunk: TextChunk) -> dict[str, Any]:
        """A whole sequence."""

    def delta(self, chunk: TextChunk) -> dict[str, Any]:
        """A piece of one."""


class CompletionForm:
    """Implements Form for /v1/completions.

    Args:
        echoes: the prompt of each index, where it is to stand before the text.
        logprobs: they were asked for.
    """

    prefix, whole, part = "cmpl", "text_completion", "text_completion"

    def __init__(self, echoes: dict[int, str], *, logprobs: bool) -> None:
        self._echoes = echoes
        self._logprobs = logprobs

    def choice(self, chunk: TextChunk) -> dict[str, Any]:
        """The same in both."""
        return self.delta(chunk)

    def delta(self, chunk: TextChunk) -> dict[str, Any]:
        """The echo stands before the first piece."""
        return {
            "index": chunk.index,
            "text": self._echoes.pop(chunk.index, "") + chunk.text,
            "logprobs": self._listed(chunk) if self._logprobs else None,
            **_ending(chunk),
        }

    def _listed(self, chunk: TextChunk) -> dict[str, Any]:
        tokens, offsets, offset = [], [], chunk.text_offset
        for each in chunk.logprobs:
            tokens.append(each.chosen.token)
            offsets.append(offset)
            offset += len(each.chosen.token)
        return {
            "tokens": tokens,
            "token_logprobs": [each.chosen.logprob for each in chunk.logprobs],
            "top_logprobs": [_by_text(each) for each in chunk.logprobs],
            "text_offset": offsets,
        }


class ChatForm:
    """Implements Form for /v1/chat/completions."""

    prefix, whole, part = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def __init__(self, *, logprobs: bool) -> None:
        self._logprobs = logprobs
        self._begun: set[int] = set()

    def choice(self, chunk: TextChunk) -> dict[str, Any]:
        """A message."""
        message = {"role": "assistant", "content": chunk.text, "refusal": None}
        return {"index": chunk.index, "message": message, "logprobs": self._listed(chunk), **_ending(chunk)}

    def delta(self, chunk: TextChunk) -> dict[str, Any]:
        """The role stands in the first one."""
        delta = {"content": chunk.text}
        if chunk.index not in self._begun:
            self._begun.add(chunk.index)
            delta = {"role": "assistant", **delta}
        return {"index": chunk.index, "delta": delta, "logprobs": self._listed(chunk), **_ending(chunk)}

    def _listed(self, chunk: TextChunk) -> dict[str, Any] | None:
        if not self._logprobs:
            return None
        return {"content": [_entry(each) for each in chunk.logprobs], "refusal": None}


def usage_of(usages: Sequence[Usage]) -> dict[str, Any]:
    """Of all prompts of a request."""
    prompt, completion = (sum(getattr(each, f"{kind}_tokens") for each in usages) for kind in ("prompt", "completion"))
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": sum(each.cached_tokens for each in usages)},
    }


def _ending(chunk: TextChunk) -> dict[str, Any]:
    stop: str | int | None = None
    match chunk.WhichOneof("stop_reason"):
        case "stop_string":
            stop = chunk.stop_string
        case "stop_token":
            stop = chunk.stop_token
    return {"finish_reason": _REASONS.get(chunk.finish_reason), "stop_reason": stop}


def _by_text(logprobs: TokenLogprobs) -> dict[str, float]:
    """Tokens that are parts of characters share a text: the drawn one has it, else the better one."""
    return {each.token: each.logprob for each in (*reversed(logprobs.top), logprobs.chosen)}


def _entry(logprobs: TokenLogprobs) -> dict[str, Any]:
    return {**_token(logprobs.chosen), "top_logprobs": [_token(best) for best in logprobs.top]}


def _token(logprob: TokenLogprob) -> dict[str, Any]:
    # A part of a character is not known by its bytes here; OpenAI has null for that.
    known = None if "\ufffd" in logprob.token else list(logprob.token.encode())
    return {"token": logprob.token, "logprob": logprob.logprob, "bytes": known}
