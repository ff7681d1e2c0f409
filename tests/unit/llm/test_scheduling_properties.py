"""Random lives of a scheduler: arrivals, aborts, deadlines, failed steps, little memory."""

import math

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

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
    rows = draw(st.integers(1, 5))
    return SchedulerConfig(
        max_model_len=draw(st.integers(8, 40)),
        vocab_size=10,
        num_blocks=draw(st.integers(1, 24)),
        block_size=draw(st.integers(1, 5)),
        max_num_seqs=rows,
        max_num_batched_tokens=rows + draw(st.integers(0, 20)),
        eos_token_ids=frozenset({EOS}),
        prefix_caching=draw(st.booleans()),
    )


@st.composite
def requests(draw: st.DrawFn) -> GenerationRequest:
    stem = draw(st.sampled_from(STEMS))
    tail = draw(st.lists(st.integers(0, 9), max_size=3))
    prompt = (*stem[: draw(st.integers(0, 20))], *tail)
    params = SamplingParams(
        max_tokens=draw(st.none() | st.integers(1, 12)),
        ignore_eos=draw(st.booleans()),
        stop_token_ids=draw(st.sampled_from([(), (), (5,)])),
    )
    return GenerationRequest(
        id="",
        prompt=prompt,
        params=params,
        tenant=draw(st.sampled_from(["", "", "t"])),
        priority=draw(st.sampled_from([0, 0, 0, 1, -1])),
        deadline=draw(st.sampled_from([math.inf, math.inf, math.inf, 3.0, 12.0])),
    )


def renamed(request: GenerationRequest, name: str, resume: int, now: float) -> tuple[GenerationRequest, list[int]]:
    """The request with a name, resumed after some of the tokens that it comes to; and all of those tokens."""
    params = request.params
    ends = (frozenset() if params.ignore_eos else frozenset({EOS})).union(params.stop_token_ids)
    most = 60 if params.max_tokens is None else len(request.prompt) + params.max_tokens
    tokens = generate(request.tenant, request.prompt, most, ends)
    fields = {name: getattr(request, name) for name in ("prompt", "params", "tenant", "priority")}
    had = tuple(tokens[: min(resume, len(tokens) - 1)])
    return GenerationRequest(id=name, deadline=request.deadline + now, resume=had, **fields), tokens


class Lives(RuleBasedStateMachine):
    """One scheduler, driven at random. `depth`: plans that may be under way when the next one is made, beside it."""

    depth = 0

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.submitted = 0
        self.expected: dict[str, list[int]] = {}
        self.live: dict[str, Sequence] = {}
        self.under_way: list[tuple[Plan, list[int]]] = []
        self.hits = 0

    @initialize(config=configs())
    def start(self, config: SchedulerConfig) -> None:
        self.core = Scheduler(config)
        self.runner = ShadowRunner(config)

    @rule(request=requests(), resume=st.sampled_from([0, 0, 2, 5]))
    def submit(self, request: GenerationRequest, resume: int) -> None:
        self.submitted += 1
        name = f"r{self.submitted}"
        named, tokens = renamed(request, name, resume, self.now) if request.prompt else (request, [])
        room = min(self.core.config.max_model_len, self.core.config.num_blocks * self.core.config.block_size + 1)
        most = request.params.max_tokens
        fits = 0 < len(request.prompt) < room and (most is None or len(request.prompt) + most <= room)
        if not fits:
            with pytest.raises(InvalidArgument):
                self.core.submit(named)
            return
        if len(named.resume) + len(named.prompt) >= room:
            return
        self.expected[name] = tokens[: room - len(named.prompt)]
        self.live[name] = self.core.submit(named)

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def abort(self, data: st.DataObject) -> None:
        sequence = self.live[data.draw(st.sampled_from(sorted(self.live)))]
        self.core.abort(sequence.id)
        assert sequence.blocks == [] and sequence.finish_reason == "abort"
        self._over(sequence)

    @rule(seconds=st.integers(1, 4))
    def wait(self, seconds: int) -> None:
        self.now += seconds

    @rule()
    def step(self) -> None:
        plan = self.core.step(self.now)
        for sequence in plan.expired:
            assert sequence.request.deadline <= self.now
            self._over(sequence)
        assert all(s.request.deadline > self.now for s in self.live.values())
        assert plan or self.depth or not self.live, "nothing moves"
        self._check_admissions(plan)
        self.under_way.append((plan, self.runner.run(plan)))
        while len(self.under_way) > self.depth:
            self._commit()

    @precondition(lambda self: not self.under_way)
    @rule()
    def fail(self) -> None:
        """The runner raised: what the plan was to store was not."""
        plan = self.core.step(self.now)
        for sequence in plan.expired:
            self._over(sequence)
        self._check_admissions(plan)
        self.core.retract(plan)
        assert all(s.row < 0 for s in plan.sequences)

    @invariant()
    def books_balance(self) -> None:
        if hasattr(self, "core"):
            self.core.check_integrity()
            assert set(self.live) == {s.id for s in (*self.core.running, *self.core.waiting)}

    def teardown(self) -> None:
        """Nothing starves: with no more arrivals, everything ends in a bounded number of steps, as if it ran alone."""
        if not hasattr(self, "core"):
            return
        # The first in order always moves by a token, and can lose its place to one that comes earlier in order only.
        bound = self.depth + (self.depth + 1) * (1 + len(self.live)) * (1 + sum(s.limit for s in self.live.values()))
        while self.live:
            bound -= 1
            assert bound > 0, f"starved: {sorted(self.live)}"
            self.step()
            self.books_balance()
        while self.under_way:
            self._commit()
        assert self.core.pool.available == self.core.config.num_blocks
        assert not self.core.step(self.now)
        assert self.core.counters.prefix_hits == self.hits

    def _check_admissions(self, plan: Plan) -> None:
        waiting = [s.order for s in self.core.waiting]
        for sequence in plan.admitted:
            assert not waiting or sequence.order < waiting[0], "somebody was let in past the first in line"
            if sequence.preemptions == 0:
                start = plan.starts[plan.sequences.index(sequence)]
                assert sequence.cached_tokens == min(start, sequence.prompt_length)
                self.hits += start
        if not self.core.config.prefix_caching:
            assert self.core.pool.idle == self.hits == 0

    def _commit(self) -> None:
        plan, tokens = self.under_way.pop(0)
        for sequence in self.core.commit(plan, tokens):
            expected = self.expected[sequence.id]
            assert sequence.output_tokens == expected[: sequence.output_length]
            if sequence.finish_reason is not None:
                assert sequence.output_tokens == expected
                ended = expected[-1] in sequence.end_ids
                assert sequence.finish_reason == ("stop" if ended else "length")
                self._over(sequence)

    def _over(self, sequence: Sequence) -> None:
        assert sequence.row == -1 and sequence.blocks == []
        del self.live[sequence.id]


class OverlappingLives(Lives):
    """The same with each step planned before the commit of the one before it."""

    depth = 1


class DeeplyOverlappingLives(Lives):
    """The same with two commits outstanding."""

    depth = 2


@pytest.mark.parametrize("machine", [Lives, OverlappingLives, DeeplyOverlappingLives])
def test_random_lives(machine: type[Lives]) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=150, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
