"""One request to a language model in a worker's hands: its sequences, and the replies that their outputs become."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from headrace.v1.reply_pb2 import Progress, Receipt, Reply
from headrace.v1.text_generation_pb2 import (
    FINISH_REASON_LENGTH,
    FINISH_REASON_STOP,
    TextChunk,
    TokenLogprob,
    TokenLogprobs,
    Usage,
)
from headrace.v1.work_pb2 import WorkRequest
from services.common.sampling import SamplingParams
from services.worker.llm.port import GenerationRequest, TokenOutput
from services.worker.llm.request import Logprobs
from services.worker.text.model import Prompt

_REASONS = {"stop": FINISH_REASON_STOP, "length": FINISH_REASON_LENGTH}
# JSON has no infinity; vLLM writes this too.
LEAST_LOGPROB = -9999.0
Piece = Callable[[int], str]


@dataclass(slots=True)
class _Place:
    """How far a sequence has come at the gateway, this worker's last piece included."""

    index: int
    tokens: int = 0
    characters: int = 0


@dataclass(slots=True, eq=False)
class Generation:
    """The sequences that this worker still has to finish, by their ids in the engine.

    Attributes:
        gateway: the id of the one that asked: gateways number alike.
        received_unix_us: when it came here.
        begun_ns: when the first output came (monotonic); 0 before.
        submitted_ns: when the engine got it (monotonic).
    """

    work: WorkRequest
    gateway: str
    received_unix_us: int
    version: int
    piece: Piece
    submitted_ns: int = field(default_factory=time.monotonic_ns)
    begun_ns: int = 0
    _places: dict[str, _Place] = field(default_factory=dict)

    @property
    def unfinished(self) -> list[str]:
        """Ids of the sequences that are still to come to an end."""
        return list(self._places)

    def requests(
        self, prompt: Prompt, params: SamplingParams, priority: int, progress: Sequence[Progress]
    ) -> list[GenerationRequest]:
        """A request for each sequence that is not complete; those that were begun elsewhere go on where they were.

        A sequence's id is the same on every worker, so that draws without a seed of the client's are, too.
        """
        work = self.work
        seconds_left = work.deadline_unix_us / 1e6 - time.time()
        passed = {each.index: each for each in progress}
        made: list[GenerationRequest] = []
        for index in range(params.n):
            before = passed.get(index, Progress())
            if before.finished:
                continue
            request = GenerationRequest(
                id=f"{self.gateway}/{work.id}#{index}",
                prompt=prompt.token_ids,
                params=params,
                index=index,
                tenant=work.tenant,
                weight=work.weight or 1.0,
                priority=priority,
                deadline=time.monotonic() + seconds_left,
                resume=tuple(before.token_ids),
                source=prompt.source,
                resume_text=before.text,
            )
            self._places[request.id] = _Place(index, len(before.token_ids), len(before.text))
            made.append(request)
        return made

    def reply(self, output: TokenOutput, companions: int) -> Reply | None:
        """What the gateway is told of an output; None if there is nothing to tell. The last one has `more` unset."""
        place = self._places[output.id]
        if not self.begun_ns:
            self.begun_ns = time.monotonic_ns()
        finished = output.finish_reason is not None
        if not (output.text or output.token_ids or finished):
            return None
        chunk = TextChunk(
            index=place.index,
            text=output.text,
            token_ids=output.token_ids,
            token_offset=place.tokens,
            text_offset=place.characters,
        )
        place.tokens += len(output.token_ids)
        place.characters += len(output.text)
        if output.logprobs is not None:
            chunk.logprobs.extend(map(self._logprobs, output.token_ids, output.logprobs))
        reply = Reply(id=self.work.id, chunk=chunk, more=True)
        if finished:
            self._finish(reply, output, companions)
        return reply

    def _finish(self, reply: Reply, output: TokenOutput, companions: int) -> None:
        del self._places[output.id]
        reply.chunk.finish_reason = _REASONS.get(output.finish_reason or "", FINISH_REASON_STOP)
        if isinstance(output.stop_reason, str):
            reply.chunk.stop_string = output.stop_reason
        elif output.stop_reason is not None:
            reply.chunk.stop_token = output.stop_reason
        reply.usage.CopyFrom(
            Usage(
                prompt_tokens=output.prompt_tokens,
                completion_tokens=output.output_tokens,
                cached_tokens=output.cached_tokens,
            )
        )
        if not self._places:
            reply.more = False
            reply.receipt.CopyFrom(self._receipt(companions))

    def _receipt(self, companions: int) -> Receipt:
        """Waiting ends with the first token; computing ends now."""
        now, work = time.monotonic_ns(), self.work
        prepared_us = max(0, time.time_ns() // 1000 - (now - self.submitted_ns) // 1000 - self.received_unix_us)
        return Receipt(
            queue_us=max(0, self.received_unix_us - work.accepted_unix_us),
            batch_us=prepared_us + (self.begun_ns - self.submitted_ns) // 1000,
            compute_us=(now - self.begun_ns) // 1000,
            batch_rows=companions,
            batch_requests=companions,
            model_version=self.version,
        )

    def _logprobs(self, token_id: int, logprobs: Logprobs) -> TokenLogprobs:
        return TokenLogprobs(
            chosen=self._logprob(token_id, logprobs.chosen),
            rank=logprobs.rank,
            top=[self._logprob(*best) for best in logprobs.top],
        )

    def _logprob(self, token_id: int, logprob: float) -> TokenLogprob:
        return TokenLogprob(token_id=token_id, token=self.piece(token_id), logprob=max(logprob, LEAST_LOGPROB))
