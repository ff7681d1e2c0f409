"""The scheduler of the LLM engine. Pure: time is an argument, no torch.

One rule (that of vLLM's v1 scheduler), and no phases of prefill and decode: a sequence has known tokens and computed
ones, and each step lets the computed catch up with the known under one token budget, running sequences first, then
waiting ones. A sequence whose chunk reaches its last known token has one more sampled.

All choices among one tenant's follow one order (`Sequence.order`): priority, then arrival. Priority is strict: lower
ones wait while higher ones keep coming. Between tenants the waiting ones are let in by shares (`sharing.py`). The
running line is walked from the front and yields from the back: when blocks run out, the last sequence loses its blocks
and waits again, to be recomputed. The first one always gets what it needs, so there is always progress; the last one
never throws away its own work for itself, it pauses.

    submit ──▶ waiting ──step: admitted──▶ running ──commit: last token──▶ finished
                  ▲                          │
                  └──────step: preempted─────┘          abort, deadline: from either, at once

Life of a step: `step` makes a plan, the runner computes it, `commit` brings the tokens. The next step may be planned
before the commit of the last one, so that a device need not wait; finish the older plan first.
"""

import math
from collections.abc import Sequence as Run
from dataclasses import dataclass

from services.common.errors import Internal, InvalidArgument
from services.worker.llm.admission import sequence_of
from services.worker.llm.blocks import BlockPool
from services.worker.llm.config import SchedulerConfig
from services.worker.llm.line import Line
from services.worker.llm.pace import Budget, Pace
from services.worker.llm.plan import Plan
from services.worker.llm.prefix import PrefixCache
from services.worker.llm.request import FinishReason, GenerationRequest
from services.worker.llm.sequence import Sequence
from services.worker.llm.sharing import WaitingLine


@dataclass(slots=True)
class Counters:
    """What happened since the start.

    Attributes:
        prefix_queries, prefix_hits: tokens that first admissions looked for in the prefix cache, and found.
        preemptions: sequences that lost their blocks to others.
    """

    prefix_queries: int = 0
    prefix_hits: int = 0
    preemptions: int = 0


class Scheduler:
    """Decides what each step computes, and owns the KV blocks. Not thread-safe."""

    def __init__(self, config: SchedulerConfig) -> None:
        self.config = config
        self.pool = BlockPool(config.num_blocks, caching=config.prefix_caching)
        self._prefix = PrefixCache(self.pool, config.block_size)
        self.waiting = WaitingLine()
        self.running = Line()
        self._pace = Pace(config.max_num_seqs, self.waiting, self.running)
        self.counters = Counters()
        self._sequences: dict[str, Sequence] = {}
        self._rows = list(range(config.max_num_seqs - 1, -1, -1))
        self._submitted = 0
        self._next_deadline = math.inf

    def __len__(self) -> int:
        """Sequences that are not finished."""
        return len(self._sequences)

    def submit(self, request: GenerationRequest) -> Sequence:
        """Puts a request in line; one whose resumed tokens already end it comes back finished, see `finish_reason`.

        Raises:
            InvalidArgument: it can never run here, or one of its id is here already.
        """
        if request.id in self._sequences:
            raise InvalidArgument(f"a request with id {request.id!r} is under way; ids must be unique")
        sequence = sequence_of(request, self._submitted, self.config)
        self._submitted += 1
        if request.resume and (reason := sequence.end_after_last()):
            sequence.finish_reason = reason
            return sequence
        if not self._sequences:
            self._pace.rested()
        self._sequences[request.id] = sequence
        self.waiting.add(sequence)
        self._next_deadline = min(self._next_deadline, request.deadline)
        return sequence

    def abort(self, request_id: str) -> Sequence | None:
        """Ends a sequence with "abort" and frees its blocks at once. None if there is no such sequence any more."""
        sequence = self._sequences.get(request_id)
        if sequence is not None:
            self.finish(sequence, "abort")
        return sequence

    def finish(self, sequence: Sequence, reason: FinishReason, stop_reason: str | int | None = None) -> None:
        """Ends a sequence from outside, as for a stop string. Frees its blocks at once; again: does nothing."""
        if sequence.finish_reason is not None:
            return
        sequence.finish_reason = reason
        sequence.stop_reason = stop_reason
        del self._sequences[sequence.id]
        if sequence.row < 0:
            self.waiting.remove(sequence)
        else:
            self.running.remove(sequence)
            self._vacate(sequence)

    def step(self, now: float) -> Plan:
        """What to compute next; an empty plan if there is nothing.

        Args:
            now: seconds, on the clock of the deadlines.
        """
        plan = Plan()
        if now >= self._next_deadline:
            self._expire(now, plan)
        if shared := self.waiting.shared:
            self._pace.begin(now)
            self._make_way(plan)
        budget = self._pace.budget(self.config.max_num_batched_tokens)
        self._continue_running(plan, budget)
        self._admit(plan, budget)
        if shared:
            self._pace.planned(plan, now)
        return plan

    def commit(self, plan: Plan, sampled: Run[int]) -> list[Sequence]:
        """Takes the tokens that a plan's sampling brought.

        Args:
            sampled: one token id for each of `plan.sampling`.

        Returns:
            The sequences that grew by a token, `tokens[-1]`; those with a `finish_reason` are over. What ended while
            the plan ran is left out.
        """
        if len(sampled) != len(plan.sampling):
            raise Internal(f"{len(sampled)} sampled tokens for a plan that samples {len(plan.sampling)}")
        grown = []
        for place, token in zip(plan.sampling, sampled, strict=True):
            sequence = plan.sequences[place]
            if sequence.finish_reason is not None:
                continue
            sequence.pending -= 1
            sequence.tokens.append(token)
            grown.append(sequence)
            if reason := sequence.end_after_last():
                self.finish(sequence, reason, sequence.stop_reason)
        return grown

    def retract(self, plan: Plan) -> None:
        """A plan failed: its unfinished sequences wait again, and nobody finds the blocks that it was to fill.

        Of several plans under way, retract the newest first.
        """
        self._pace.rested()
        for block in plan.registered:
            self.pool.forget(block)
        for place in plan.sampling:
            plan.sequences[place].pending -= 1
        for sequence in plan.sequences:
            if sequence.finish_reason is None and sequence.row >= 0:
                self.running.remove(sequence)
                self._return_to_line(sequence)

    def check_integrity(self) -> None:
        """Holds all books against each other; dear, for tests and idle moments.

        Raises:
            Internal: something does not add up; the message says what.
        """
        live = [*self.waiting, *self.running]
        if {s.id: s for s in live} != self._sequences or len(live) != len(self._sequences):
            raise Internal("the lines and the table of sequences differ")
        if [s.order for s in self.running] != sorted(s.order for s in self.running):
            raise Internal("the running line is out of order")
        if any(s.blocks or s.computed or s.registered or s.row >= 0 for s in self.waiting):
            raise Internal("a waiting sequence holds blocks or a row")
        if sorted([*self._rows, *(s.row for s in self.running)]) != list(range(self.config.max_num_seqs)):
            raise Internal("free rows and taken rows do not add up")
        for s in self.running:
            if s.computed > len(s.blocks) * self.config.block_size or s.computed > len(s.tokens) + s.pending:
                raise Internal(f"sequence {s.id} has computed more than it has blocks or tokens for")
        self.pool.check([s.blocks for s in self.running])

    def _expire(self, now: float, plan: Plan) -> None:
        for sequence in [s for s in self._sequences.values() if s.request.deadline <= now]:
            plan.expired.append(sequence)
            self.finish(sequence, "abort")
        self._next_deadline = min((s.request.deadline for s in self._sequences.values()), default=math.inf)

    def _continue_running(self, plan: Plan, budget: Budget) -> None:
        """Chunks of the running sequences."""
        running, place = self.running, 0
        while place < len(running):
            sequence, place = running[place], place + 1
            if len(sequence.tokens) + sequence.pending >= sequence.limit:
                continue  # its last token is on the way: steps overlap
            # Each of those behind keeps one token of the budget, so that a long prompt never stops their output.
            want = min(sequence.missing, budget.left - (len(running) - place), budget.of(sequence))
            if count := self._make_room(sequence, want, plan):
                self._plan(sequence, count, plan, budget)

    def _make_room(self, sequence: Sequence, count: int, plan: Plan) -> int:
        """Blocks for a sequence's next `count` tokens, from later ones if needed; how many it got."""
        missing = self._blocks_for(sequence.computed + count) - len(sequence.blocks)
        if missing <= 0:
            return count
        while missing > self.pool.available and self.running[-1] is not sequence:
            self._preempt(self.running[-1], plan)
        if missing > self.pool.available:
            missing = self.pool.available
            count = (len(sequence.blocks) + missing) * self.config.block_size - sequence.computed
        self._give(sequence, self.pool.take(missing), plan)
        return count

    def _make_way(self, plan: Plan) -> None:
        """Takes rows and blocks back from tenants with more than their part, for the first in line."""
        while self.waiting and not (first := self.waiting.first()).pending and self._room_for(first) is None:
            if (yields := self.waiting.who_yields(self.running, self.config.max_num_seqs)) is None:
                return
            self._preempt(yields, plan)

    def _room_for(self, sequence: Sequence) -> list[int] | None:
        """The blocks that a sequence would share, if it can be let in now.

        It needs blocks for all that it knows, and leaves a spare one for each that runs: those grow, and would soon
        take theirs back by preemption (in simulation a quarter to a half as often as without the spare ones).
        """
        if not self._rows:
            return None
        shared = self._prefix.find(sequence)
        missing = self._blocks_for(len(sequence.tokens)) - len(shared)
        revived = sum(map(self.pool.is_idle, shared))
        return shared if missing + revived + len(self.running) <= self.pool.available else None

    def _preempt(self, sequence: Sequence, plan: Plan) -> None:
        self.running.remove(sequence)
        self._return_to_line(sequence)
        plan.preempted.append(sequence)
        self.counters.preemptions += 1

    def _admit(self, plan: Plan, budget: Budget) -> None:
        """Lets waiting sequences in, in order, while there is room. None passes the first: a large one would starve."""
        while budget.left and self.waiting:
            sequence = self.waiting.first()
            if sequence.pending:
                break  # preempted with a token under way; all tokens must be known to compute it again
            if not budget.of(sequence) or (shared := self._room_for(sequence)) is None:
                break
            self.waiting.remove(sequence)
            self._seat(sequence, shared, plan)
            count = min(sequence.missing, budget.of(sequence))
            self._give(sequence, self.pool.take(self._blocks_for(sequence.computed + count) - len(shared)), plan)
            self._plan(sequence, count, plan, budget)

    def _plan(self, sequence: Sequence, count: int, plan: Plan, budget: Budget) -> None:
        plan.add(sequence, count)
        plan.registered.extend(self._prefix.register(sequence))
        budget.spend(sequence, count)

    def _seat(self, sequence: Sequence, shared: list[int], plan: Plan) -> None:
        for block in shared:
            self.pool.share(block)
        sequence.row = self._rows.pop()
        sequence.computed = len(shared) * self.config.block_size
        sequence.registered = len(shared)
        self._give(sequence, shared, plan)
        self.running.add(sequence)
        plan.admitted.append(sequence)
        if sequence.cached_tokens < 0:
            sequence.cached_tokens = min(sequence.computed, sequence.prompt_length)
            self.counters.prefix_queries += len(sequence.tokens)
            self.counters.prefix_hits += sequence.computed

    def _give(self, sequence: Sequence, blocks: list[int], plan: Plan) -> None:
        plan.extend_table(sequence.row, len(sequence.blocks), blocks)
        sequence.blocks.extend(blocks)

    def _return_to_line(self, sequence: Sequence) -> None:
        self._vacate(sequence)
        sequence.preemptions += 1
        self.waiting.add(sequence)

    def _vacate(self, sequence: Sequence) -> None:
        self.pool.release(sequence.blocks)
        sequence.blocks, sequence.computed, sequence.registered = [], 0, 0
        self._rows.append(sequence.row)
        sequence.row = -1

    def _blocks_for(self, tokens: int) -> int:
        return -(-tokens // self.config.block_size)
