"""The engine without threads or clocks: requests in, one step at a time, what each step brought out.

What a request does to the engine stays with that request: if a step fails, its chunks are run one by one, those that
fail again end with an error, and all others are computed anew.
"""

import logging
from typing import Protocol

from tokenizers import Tokenizer

from services.common.errors import DeadlineExceeded, HeadraceError, InvalidArgument, ModelFailed
from services.worker.llm.config import SchedulerConfig
from services.worker.llm.decoders import decoders
from services.worker.llm.output import OutputText
from services.worker.llm.plan import Plan
from services.worker.llm.port import EngineStats
from services.worker.llm.request import GenerationRequest, Logprobs, TokenOutput
from services.worker.llm.sampler import Sampled
from services.worker.llm.scheduler import Scheduler
from services.worker.llm.sequence import Sequence
from services.worker.llm.structured import Grammars

log = logging.getLogger(__name__)

# Steps that may fail one after the other without a chunk that fails alone, before the engine gives up.
_MAX_FAILURES = 3


class EngineBroken(ModelFailed):
    """The runner cannot go on, whatever it is given."""


class PlanRunner(Protocol):
    """What computes plans; `runner.Runner` is one."""

    config: SchedulerConfig
    grammars: Grammars

    def run(self, plan: Plan) -> Sampled:
        """Computes a plan and draws a token for each of `plan.sampling`. Raises EngineBroken if it never will again."""

    def close(self) -> None:
        """Frees what it holds."""


class Stepper:
    """Scheduler, runner and text of the sequences under way. Called from one thread."""

    def __init__(self, runner: PlanRunner, tokenizer: Tokenizer) -> None:
        self.scheduler = Scheduler(runner.config)
        self._runner = runner
        self._decoders = decoders(tokenizer)
        self._texts: dict[str, OutputText] = {}
        self._failures = 0

    def submit(self, request: GenerationRequest) -> list[TokenOutput]:
        """Takes a request on; what comes of it at once: nothing, its end if `resume` is all, or an error."""
        try:
            if request.params.structured is not None:
                if request.params.ignore_eos:
                    raise InvalidArgument("structured output ends with an end token; ask for it without ignore_eos")
                self._runner.grammars.admit(request.id, request.params.structured)
            sequence = self.scheduler.submit(request)
        except HeadraceError as error:
            self._runner.grammars.release(request.id)
            return [TokenOutput(id=request.id, index=request.index, finish_reason="abort", error=error)]
        text = self._texts[request.id] = OutputText(self._decoders[request.params.skip_special_tokens], request)
        if text.stop is not None:
            self.scheduler.finish(sequence, "stop", text.stop)
        return [self._output(sequence, (), "")] if sequence.finish_reason else []

    def abort(self, request_id: str) -> list[TokenOutput]:
        """Frees what a request holds; unknown ids are fine. Nothing comes of it."""
        self.scheduler.abort(request_id)
        self._forget(request_id)
        return []

    def step(self, now: float) -> list[TokenOutput]:
        """Computes one plan, if there is anything to compute.

        Args:
            now: seconds, on the clock of the deadlines.

        Raises:
            EngineBroken: steps fail and no request is at fault.
        """
        plan = self.scheduler.step(now)
        outputs = [
            self._failed(sequence, DeadlineExceeded("the deadline passed before the generation was complete"))
            for sequence in plan.expired
        ]
        if plan:
            outputs.extend(self._compute(plan))
        return outputs

    def stats(self) -> EngineStats:
        """As of now."""
        core, pool = self.scheduler, self.scheduler.pool
        return EngineStats(
            running=len(core.running),
            waiting=len(core.waiting),
            kv_blocks_used=pool.total - pool.available,
            kv_blocks_total=pool.total,
            prefix_tokens_hit=core.counters.prefix_hits,
            prefix_tokens_asked=core.counters.prefix_queries,
            preemptions=core.counters.preemptions,
        )

    def close(self) -> None:
        """Frees what the runner holds."""
        self._runner.close()

    def _compute(self, plan: Plan) -> list[TokenOutput]:
        try:
            sampled = self._runner.run(plan)
        except EngineBroken:
            raise
        except Exception as error:  # whatever a model raises
            log.exception("a step of %d sequences failed", len(plan.sequences))
            return self._find_fault(plan, error)
        self._failures = 0
        logprobs = dict(zip((plan.sequences[place].id for place in plan.sampling), sampled.logprobs, strict=True))
        grown = self.scheduler.commit(plan, sampled.tokens)
        return [self._grown(sequence, logprobs[sequence.id]) for sequence in grown]

    def _grown(self, sequence: Sequence, logprobs: Logprobs | None) -> TokenOutput:
        text, token = self._texts[sequence.id], sequence.tokens[-1]
        piece = text.push(token, sequence.finish_reason)
        if text.stop is not None:
            self.scheduler.finish(sequence, "stop", text.stop)
        return self._output(sequence, (token,), piece, logprobs)

    def _output(
        self, sequence: Sequence, tokens: tuple[int, ...], piece: str, logprobs: Logprobs | None = None
    ) -> TokenOutput:
        stop = self._texts[sequence.id].stop
        if sequence.finish_reason is not None:
            self._forget(sequence.id)
        return TokenOutput(
            id=sequence.id,
            index=sequence.request.index,
            token_ids=tokens,
            text=piece,
            logprobs=None if logprobs is None else (logprobs,),
            finish_reason="stop" if stop is not None else sequence.finish_reason,
            stop_reason=stop if stop is not None else sequence.stop_reason,
            prompt_tokens=sequence.prompt_length,
            cached_tokens=max(0, sequence.cached_tokens),
            output_tokens=sequence.output_length,
        )

    def _find_fault(self, plan: Plan, error: Exception) -> list[TokenOutput]:
        """Runs a failed plan's chunks one by one. To write the same keys and values again does no harm."""
        faults = {}
        for place, sequence in enumerate(plan.sequences):
            try:
                self._runner.run(_only(plan, place))
            except Exception as fault:
                faults[sequence.id] = fault
        self.scheduler.retract(plan)
        self._failures = 0 if faults else self._failures + 1
        if self._failures >= _MAX_FAILURES:
            raise EngineBroken(f"{_MAX_FAILURES} steps failed in a row: {error}") from error
        outputs = []
        for sequence in plan.sequences:
            if (found := faults.get(sequence.id)) is not None:
                self.scheduler.abort(sequence.id)
                outputs.append(self._failed(sequence, ModelFailed(f"the model failed on this request: {found}")))
        return outputs

    def _failed(self, sequence: Sequence, error: HeadraceError) -> TokenOutput:
        self._forget(sequence.id)
        return TokenOutput(
            id=sequence.id,
            index=sequence.request.index,
            finish_reason="abort",
            prompt_tokens=sequence.prompt_length,
            output_tokens=sequence.output_length,
            error=error,
        )

    def _forget(self, request_id: str) -> None:
        self._texts.pop(request_id, None)
        self._runner.grammars.release(request_id)


def _only(plan: Plan, place: int) -> Plan:
    """The plan of one of a plan's chunks."""
    first = sum(plan.counts[:place])
    sequence = plan.sequences[place]
    return Plan(
        sequences=[sequence],
        rows=[plan.rows[place]],
        starts=[plan.starts[place]],
        counts=[plan.counts[place]],
        token_ids=plan.token_ids[first : first + plan.counts[place]],
        sampling=[0] if place in plan.sampling else [],
        table_rows=plan.table_rows,
        table_columns=plan.table_columns,
        table_blocks=plan.table_blocks,
        admitted=[sequence] if sequence in plan.admitted else [],
    )
