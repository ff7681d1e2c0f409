"""How much of each step is for tenants who are over their part. Pure.

As in batches of tensors (`services/worker/overdrafts.py`): their tokens join a step as far as it stays short by what
steps of several sizes took, after all others' tokens; so a flood's rows do not make each of the others' tokens late.
"""

from dataclasses import dataclass
from itertools import islice

from services.worker.batch_cost import BatchCost
from services.worker.llm.line import Line
from services.worker.llm.plan import Plan
from services.worker.llm.sequence import Sequence
from services.worker.llm.sharing import WaitingLine
from services.worker.overdrafts import STRETCH, Overdrafts


@dataclass(slots=True)
class Budget:
    """Tokens of one step.

    Attributes:
        left: for whoever comes.
        spare: of these, for those who are over.
        over: these tenants.
    """

    left: int
    spare: int = 0
    over: frozenset[str] = frozenset()

    def of(self, sequence: Sequence) -> int:
        """What is left for a sequence."""
        return min(self.left, self.spare) if self.over and sequence.request.tenant in self.over else self.left

    def spend(self, sequence: Sequence, count: int) -> None:
        """It has so many tokens in this step."""
        self.left -= count
        if self.over and sequence.request.tenant in self.over:
            self.spare -= count


@dataclass(slots=True)
class _Given:
    """What a step gives to a tenant: tokens read or written, chunks of sequences, tokens written, requests begun."""

    weight: float
    tokens: int = 0
    chunks: int = 0
    written: int = 0
    begun: int = 0


class Pace:
    """Learns what steps cost from the time between them, and what each tenant was given; only where tenants are named.

    Args:
        rows: sequences that run at a time.
        waiting, running: the scheduler's lines.
    """

    def __init__(self, rows: int, waiting: WaitingLine, running: Line) -> None:
        self._rows = rows
        self._waiting, self._running = waiting, running
        self._cost, self._overdrafts = BatchCost(), Overdrafts()
        # Tokens of the last step, and when it was planned.
        self._last: tuple[int, float] | None = None

    def rested(self) -> None:
        """The last step failed, or nothing followed it: the time since then is not what it took."""
        self._last = None

    def begin(self, now: float) -> None:
        """A step comes: tells the line who is over."""
        if self._last is not None and now > self._last[1]:
            self._cost.learn(self._last[0], now - self._last[1])
        self._waiting.over = self._overdrafts.over(now)

    def budget(self, tokens: int) -> Budget:
        """Shares out the tokens of a step."""
        over = self._waiting.over
        if not over or (short := self._cost.rows_within(STRETCH)) >= tokens:
            return Budget(tokens)
        wanted = sum(each.missing for each in self._running if each.request.tenant not in over)
        least = 0 if wanted else 1
        others = (each for each in self._waiting if each.request.tenant not in over)
        wanted += sum(each.missing for each in islice(others, self._rows - len(self._running)))
        return Budget(tokens, max(least, int(short) - wanted), over)

    def planned(self, plan: Plan, now: float) -> None:
        """Counts what a plan gives to each tenant."""
        self._last = (sum(plan.counts), now) if plan else None
        given: dict[str, _Given] = {}
        for sequence, count in zip(plan.sequences, plan.counts, strict=True):
            to = given.setdefault(sequence.request.tenant, _Given(sequence.request.weight))
            to.tokens += count
            to.chunks += 1
        for place in plan.sampling:
            given[plan.sequences[place].request.tenant].written += 1
        for sequence in plan.admitted:
            given[sequence.request.tenant].begun += not sequence.preemptions
        for tenant, to in given.items():
            self._waiting.charge(tenant, to.tokens + to.written)
            seconds = self._cost.row * to.tokens + self._cost.batch * to.chunks / self._rows
            self._overdrafts.served(tenant, to.weight, seconds, to.begun, now)
