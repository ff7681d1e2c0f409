"""Tokens to text as they come, for any tokenizer that can decode a list of ids.

Decoding each id alone is wrong: a character may span tokens, and decoders drop the space before a first word. So, as
in vLLM and text-generation-inference, a short window is decoded: some tokens whose text is out already (the prefix),
and those after them. What the window gives beyond the prefix is new. A character that is not complete shows as U+FFFD
at the end, and is held back.

    window:  [ t5  t6 | t7  t8 ]      decode(t5 t6) = prefix,  decode(t5 … t8) = prefix + new
               prefix   pending       once `new` ends in a whole character, t7 t8 become the prefix
"""

from collections.abc import Sequence as Run
from typing import Protocol

REPLACEMENT = "\ufffd"
# A character has at most four bytes: three may come without making one.
MAX_INCOMPLETE = 3
# Tokens of the prompt that the first output is decoded after.
CONTEXT = 6
# Output without a whole character can go on for ever; the window may not.
MAX_PENDING = 32
KEEP = 8


class Decoder(Protocol):
    """A tokenizer's way back. It must not tidy up spaces afterwards: that would rewrite what is out."""

    def decode(self, ids: Run[int], /) -> str:
        """The text of tokens that stand together; U+FFFD for bytes that make no character."""
        ...


class Detokeniser:
    """The text of one sequence's output, piece by piece. The same tokens always give the same pieces.

    Args:
        prompt: what the output follows; its end decides, for example, whether a first space is written.
    """

    def __init__(self, decoder: Decoder, prompt: Run[int] = ()) -> None:
        self._decoder = decoder
        self._sent = 0
        context = self._context(prompt)
        self._start_window(context, min(_undecodable(self._decode(context)), MAX_INCOMPLETE))

    def push(self, token: int) -> str:
        """The text that is certain now that `token` has come; often empty."""
        self._window.append(token)
        new = self._new()
        held = _undecodable(new)
        long = len(self._window) - self._settled > MAX_PENDING
        if long:
            held = min(held, MAX_INCOMPLETE)
        piece = new[self._sent : len(new) - held]
        self._sent += len(piece)
        if new and not held:
            self._start_window(self._window[self._settled :], 0)
        elif new and long:
            self._start_window(self._window[-KEEP:], held)
        elif long:  # tokens without text, as special ones are
            del self._window[self._settled :]
        return piece

    def flush(self) -> str:
        """What is left at the end of the output: incomplete characters, as U+FFFD."""
        return self._new()[self._sent :]

    def _new(self) -> str:
        """The text of the window after the prefix."""
        text = self._decode(self._window)
        if text.startswith(self._prefix):
            return text[len(self._prefix) :]
        # With byte fallback one wrong byte spoils all bytes before it, even those whose text is out.
        return self._decode(self._window[self._settled :])

    def _context(self, prompt: Run[int]) -> list[int]:
        """The end of the prompt, from the beginning of a character on: where least is undecodable."""
        ends = (list(prompt[-length:]) for length in range(CONTEXT, CONTEXT + MAX_INCOMPLETE + 1))
        return min(ends, key=lambda ids: self._decode(ids).count(REPLACEMENT))

    def _start_window(self, ids: list[int], held: int) -> None:
        """A window of tokens whose text is out, but for `held` characters at their end."""
        text = self._decode(ids)
        self._window = ids
        self._prefix = text[: len(text) - held]
        self._settled = len(ids) - held
        self._sent = 0

    def _decode(self, ids: list[int]) -> str:
        return self._decoder.decode(ids) if ids else ""


def _undecodable(text: str) -> int:
    """Characters at the end that may be the beginning of one; more with byte fallback, which shows each byte."""
    return len(text) - len(text.rstrip(REPLACEMENT))
