"""Random lives of a scheduler: arrivals, aborts, deadlines, failed steps, little memory."""

import math
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from services.common.errors import InvalidArgument
from services.worker.llm.config import SchedulerConfig
from services.worker.llm.plan import Plan
from services.worker.llm.request import GenerationRequest, SamplingParams
from services.worker.llm.scheduler import Scheduler
from services.worker.llm.sequence import Sequence
from tests.support.llm_shadow import EOS, ShadowRunner, generate

# Few stems with few tokens, so that prefixes are shared, and many block boundaries are met.
STEMS = [tuple((stem * 5 + i * i) % 9 for i in range(24)) for stem in range(3)]


@st.composite
def configs(draw: st.DrawFn) -> SchedulerConfig:
    """Small engines whose pools hold about one sequence of full length, so that several must share."""
    rows = draw(st.sampled_from([1, 3, 4, 6]))
    size = draw(st.integers(1, 5))
    context = draw(st.integers(24, 40))
    return SchedulerConfig(
        max_model_len=context,
        vocab_size=10,
        num_blocks=-(-draw(st.integers(context // 2, context * 3 // 2)) // size),
        block_size=size,
        max_num_seqs=rows,
        max_num_batched_tokens=rows + draw(st.integers(0, 20)),
        eos_token_ids=frozenset({EOS}),
        prefix_caching=draw(st.sampled_from([True, True, False])),
    )


@st.composite
def requests(draw: st.DrawFn) -> GenerationRequest:
    stem = draw(st.sampled_from(STEMS))
    tail = draw(st.lists(st.integers(0, 9), max_size=3))
    prompt = (*stem[: draw(st.integers(0, 12))], *tail)
    params = SamplingParams(
        max_tokens=draw(st.sampled_from([12, None, 16, 8, 1])),
        ignore_eos=draw(st.sampled_from([True, True, True, False])),
        stop_token_ids=draw(st.sampled_from([(), (), (), (5,)])),
    )
    return GenerationRequest(
        id="",
        prompt=prompt,
        params=params,
        tenant=draw(st.sampled_from(["", "", "t", "u"])),
        weight=draw(st.sampled_from([1.0, 1.0, 4.0])),
        priority=draw(st.sampled_from([0, 0, 0, 1, -1])),
        deadline=draw(st.sampled_from([math.inf, math.inf, math.inf, 3.0, 12.0])),
    )


@dataclass(frozen=True)
class Round:
    """What happens before some steps.

    Attributes:
        arrivals: requests, and after how many of their tokens each is resumed.
        abort: which of the live sequences is aborted; None: none.
        wait: seconds that pass.
        fail: the first step fails and is taken back.
    """

    arrivals: list[tuple[GenerationRequest, int]]
    abort: int | None
    wait: int
    fail: bool
    steps: int


ROUNDS = st.builds(
    Round,
    arrivals=st.lists(st.tuples(requests(), st.sampled_from([0, 0, 0, 2, 5])), min_size=1, max_size=5),
    abort=st.sampled_from([None, None, None, 0, 1, 2, 3]),
    wait=st.sampled_from([0, 0, 1, 3]),
    fail=st.sampled_from([False, False, False, False, True]),
    steps=st.integers(1, 8),
)


@dataclass
class Life:
    """A scheduler and a runner, and what is to come of every request.

    Attributes:
        depth: plans that may be under way when the next is made.
        expected: all output tokens of each request that was let in, as if it ran alone.
    """

    config: SchedulerConfig
    depth: int
    now: float = 0.0
    hits: int = 0
    submitted: int = 0
    expected: dict[str, list[int]] = field(default_factory=dict)
    live: dict[str, Sequence] = field(default_factory=dict)
    under_way: list[tuple[Plan, list[int]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.core = Scheduler(self.config)
        self.runner = ShadowRunner(self.config)

    def play(self, this: Round) -> None:
        for request, resume in this.arrivals:
            self.submit(request, resume)
        if this.abort is not None and this.abort < len(self.live):
            self.abort([*self.live.values()][this.abort])
        self.now += this.wait
        if this.fail:
            self.fail()
        for _ in range(this.steps):
            self.step()

    def submit(self, request: GenerationRequest, resume: int) -> None:
        self.submitted += 1
        room = min(self.config.max_model_len, self.config.num_blocks * self.config.block_size + 1)
        most = room - len(request.prompt) if request.params.max_tokens is None else request.params.max_tokens
        request = replace(request, id=f"r{self.submitted}", deadline=request.deadline + self.now)
        if not 0 < len(request.prompt) < room or len(request.prompt) + most > room:
            with pytest.raises(InvalidArgument):
                self.core.submit(request)
            return
        ends = frozenset() if request.params.ignore_eos else self.config.eos_token_ids
        tokens = generate(
            request.tenant, request.prompt, len(request.prompt) + most, ends.union(request.params.stop_token_ids)
        )
        request = replace(request, resume=tuple(tokens[: min(resume, len(tokens) - 1)]))
        self.expected[request.id] = tokens
        self.live[request.id] = self.core.submit(request)

    def abort(self, sequence: Sequence) -> None:
        assert self.core.abort(sequence.id) is sequence
        assert (sequence.blocks, sequence.finish_reason) == ([], "abort")
        self._over(sequence)
        self.core.check_integrity()

    def step(self) -> None:
        plan = self._plan()
        assert plan or self.depth or not self.live, "nothing moves"
        self.under_way.append((plan, self.runner.run(plan)))
        while len(self.under_way) > self.depth:
            self._commit()
        self.core.check_integrity()
        assert set(self.live) == {s.id for s in (*self.core.running, *self.core.waiting)}

    def fail(self) -> None:
        """The runner raises: what the plan was to store was not."""
        self.commit_all()
        plan = self._plan()
        self.core.retract(plan)
        assert all(s.row < 0 for s in plan.sequences)
        self.core.check_integrity()

    def drain(self) -> None:
        """Nothing starves: with no more arrivals, everything ends in a bounded number of steps."""
        # The first in order moves by a token at least, and can lose its place to one that is before it in order only.
        bound = self.depth + (self.depth + 1) * (1 + len(self.live)) * (1 + sum(s.limit for s in self.live.values()))
        while self.live:
            bound -= 1
            assert bound > 0, f"starved: {sorted(self.live)}"
            self.step()
        self.commit_all()
        assert self.core.pool.available == self.config.num_blocks
        assert not self.core.step(self.now)
        assert self.core.counters.prefix_hits == self.hits

    def commit_all(self) -> None:
        while self.under_way:
            self._commit()

    def _plan(self) -> Plan:
        plan = self.core.step(self.now)
        for sequence in plan.expired:
            assert sequence.request.deadline <= self.now
            self._over(sequence)
        assert all(s.request.deadline > self.now for s in self.live.values())
        self._check_admissions(plan)
        return plan

    def _check_admissions(self, plan: Plan) -> None:
        for sequence in plan.admitted:
            waiting = [s.order for s in self.core.waiting if s.request.tenant == sequence.request.tenant]
            assert not waiting or sequence.order < min(waiting), "somebody was let in past the first of his tenant's"
            if sequence.preemptions == 0:
                start = plan.starts[plan.sequences.index(sequence)]
                assert sequence.cached_tokens == min(start, sequence.prompt_length)
                self.hits += start
        if not self.config.prefix_caching:
            assert self.core.pool.idle == self.hits == 0

    def _commit(self) -> None:
        plan, tokens = self.under_way.pop(0)
        for sequence in self.core.commit(plan, tokens):
            expected = self.expected[sequence.id]
            assert sequence.output_tokens == expected[: sequence.output_length]
            if sequence.finish_reason is not None:
                assert sequence.output_tokens == expected
                assert sequence.finish_reason == ("stop" if expected[-1] in sequence.end_ids else "length")
                self._over(sequence)

    def _over(self, sequence: Sequence) -> None:
        assert sequence.row == -1 and sequence.blocks == []
        del self.live[sequence.id]


@pytest.mark.parametrize("depth", [0, 1, 2])
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(config=configs(), rounds=st.lists(ROUNDS, min_size=2, max_size=12))
def test_random_lives(depth: int, config: SchedulerConfig, rounds: list[Round]) -> None:
    life = Life(config, depth)
    for this in rounds:
        life.play(this)
    life.drain()
    event(f"preemptions: {min(life.core.counters.preemptions, 3)}")
    event(f"prefix hits: {life.core.counters.prefix_hits > 0}")
