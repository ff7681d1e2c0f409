"""One generation on its way to its caller: what has come of each sequence, and what waits to be read.

Every piece says where in its sequence it begins. So what comes twice (a frame repeated after a broken stream) is
dropped, what comes in part twice is cut, and a worker that goes on where another died is told exactly what the caller
has.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from headrace.v1.reply_pb2 import Progress, Reply
from headrace.v1.text_generation_pb2 import FINISH_REASON_UNSPECIFIED, TextChunk, Usage
from services.common.errors import Internal, QueueFull

# What may wait for a caller that reads slowly; 4 MiB are about a million tokens without log probabilities.
MOST_WAITING_BYTES = 4 * 1024 * 1024
_LOGPROB_BYTES = 32


@dataclass(slots=True)
class _Sequence:
    """What has been passed on of one sequence; `length` is that of the text."""

    tokens: list[int] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)
    length: int = 0
    finished: bool = False


class TextStream:
    """Takes a worker's pieces in at any speed and gives them out at the caller's.

    What waits for a slow caller is joined to one piece a sequence, so it costs no more than its tokens, and ends the
    generation when it is too much; nobody else waits for it.

    Attributes:
        usage: of all sequences that are complete.
        progressed: something new came since the last claim.
    """

    def __init__(self, sequences: int) -> None:
        self.usage = Usage()
        self.progressed = False
        self._sequences = [_Sequence() for _ in range(sequences)]
        self._waiting: dict[int, TextChunk] = {}
        self._waiting_bytes = 0
        self._wake = asyncio.Event()

    @property
    def complete(self) -> bool:
        """Every sequence has come to its end."""
        return all(sequence.finished for sequence in self._sequences)

    def take(self, reply: Reply) -> None:
        """A piece came.

        Raises:
            Internal: it does not follow on what came before.
            QueueFull: the caller reads too slowly.
        """
        chunk = reply.chunk
        if chunk.index >= len(self._sequences):
            raise Internal(f"a worker sent sequence {chunk.index} of {len(self._sequences)}; look at its log")
        sequence = self._sequences[chunk.index]
        if sequence.finished or not self._trim(chunk, sequence):
            return
        self.progressed = True
        sequence.tokens.extend(chunk.token_ids)
        sequence.pieces.append(chunk.text)
        sequence.length += len(chunk.text)
        if chunk.finish_reason != FINISH_REASON_UNSPECIFIED:
            sequence.finished = True
            self._count(reply.usage)
        self._add(chunk)

    async def chunks(self, ended: asyncio.Future[Reply]) -> AsyncIterator[TextChunk]:
        """What comes, until `ended` is done; raises what that holds."""
        ended.add_done_callback(lambda _: self._wake.set())
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                waiting, self._waiting, self._waiting_bytes = self._waiting, {}, 0
                for chunk in waiting.values():
                    yield chunk
            if ended.done():
                ended.result()
                return

    def progress(self) -> list[Progress]:
        """What has been passed on, for the worker that goes on."""
        return [
            Progress(index=index, token_ids=each.tokens, text="".join(each.pieces), finished=each.finished)
            for index, each in enumerate(self._sequences)
            if each.tokens or each.length or each.finished
        ]

    def _trim(self, chunk: TextChunk, sequence: _Sequence) -> bool:
        """Cuts off what is known; whether anything is left."""
        tokens = len(sequence.tokens) - chunk.token_offset
        characters = sequence.length - chunk.text_offset
        if tokens < 0 or characters < 0:
            raise Internal(
                f"a worker went on after {chunk.token_offset} tokens of sequence {chunk.index}, but"
                f" {len(sequence.tokens)} had come; look at its log"
            )
        if tokens:
            del chunk.token_ids[:tokens]
            del chunk.logprobs[:tokens]
            chunk.token_offset += tokens
        if characters:
            chunk.text = chunk.text[characters:]
            chunk.text_offset += characters
        return bool(chunk.token_ids or chunk.text or chunk.finish_reason != FINISH_REASON_UNSPECIFIED)

    def _add(self, chunk: TextChunk) -> None:
        self._waiting_bytes += len(chunk.text) + 8 * len(chunk.token_ids)
        self._waiting_bytes += sum(_LOGPROB_BYTES * (1 + len(logprobs.top)) for logprobs in chunk.logprobs)
        if self._waiting_bytes > MOST_WAITING_BYTES:
            raise QueueFull(
                f"over {MOST_WAITING_BYTES >> 20} MiB of generated text wait for this caller, who does not read them;"
                " read faster, or ask for fewer log probabilities"
            )
        waiting = self._waiting.get(chunk.index)
        if waiting is None:
            self._waiting[chunk.index] = chunk
        else:
            waiting.text += chunk.text
            waiting.token_ids.extend(chunk.token_ids)
            waiting.logprobs.extend(chunk.logprobs)
            waiting.finish_reason = chunk.finish_reason
            match chunk.WhichOneof("stop_reason"):
                case "stop_string":
                    waiting.stop_string = chunk.stop_string
                case "stop_token":
                    waiting.stop_token = chunk.stop_token
        self._wake.set()

    def _count(self, usage: Usage) -> None:
        """The prompt is one, whatever the number of sequences."""
        self.usage.prompt_tokens = max(self.usage.prompt_tokens, usage.prompt_tokens)
        self.usage.cached_tokens = max(self.usage.cached_tokens, usage.cached_tokens)
        self.usage.completion_tokens += usage.completion_tokens
