"""The same floods in simulated time: the real windows, batcher and scheduler, on a machine that does nothing else.

python -m benchmarks.tenants.simulate [--seconds 1000] [--gateways 1]

What a busy machine adds is missing here, and what processes cost; what is left is what the rules do.
"""

import argparse
import heapq
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from random import Random

from benchmarks.multi_model.callers import percentile
from benchmarks.tenants.kinds import TENSORS, Tensors
from services.common.fair import CREDIT, FairWindow, Shares
from services.gateway.dispatch.tenant_lines import BATCHES_AHEAD, OWN_BATCHES
from services.worker.batcher import Batcher, Entry
from services.worker.llm.config import SchedulerConfig
from services.worker.llm.request import GenerationRequest, SamplingParams
from services.worker.llm.scheduler import Scheduler

TENANTS = ("flooder", "a", "b", "c", "d")
# From gateway to worker, and back.
HOP_SECONDS = 0.001


@dataclass(slots=True)
class Clock:
    """Events in the order of their times."""

    now: float = 0.0
    _events: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Something happens later."""
        heapq.heappush(self._events, (self.now + seconds, next(self._numbers), action))

    def run(self, until: float) -> None:
        """Whatever happens until then."""
        while self._events and self._events[0][0] <= until:
            self.now, _, action = heapq.heappop(self._events)
            action()


@dataclass(slots=True, eq=False)
class Asked:
    """A request; charged when its gateway lets it go."""

    tenant: str
    at: float
    gateway: int
    charged: float = 0.0


class House:
    """Gateways' windows in front of one worker, which a subclass is.

    Args:
        rows: requests that the worker runs at a time.
        shared: with tenants; otherwise one line for all.
    """

    def __init__(self, clock: Clock, rows: int, gateways: int, *, shared: bool) -> None:
        self.clock = clock
        self.shared = shared
        self.latencies: dict[str, list[float]] = {tenant: [] for tenant in TENANTS}
        self._windows: list[FairWindow[Asked]] = [
            FairWindow(Shares(CREDIT), BATCHES_AHEAD * rows, OWN_BATCHES * rows) for _ in range(gateways)
        ]

    def ask(self, asked: Asked) -> None:
        """A request comes to its gateway."""
        if self.shared:
            self._windows[asked.gateway].add(asked, asked.tenant, 1.0)
            self._let_go(asked.gateway)
        else:
            self.clock.after(HOP_SECONDS, partial(self.arrive, asked))

    def answer(self, asked: Asked, cost: float) -> None:
        """The worker is done with it."""
        self.latencies[asked.tenant].append(self.clock.now - asked.at)
        if self.shared:
            self._windows[asked.gateway].over(asked.tenant, asked.charged, cost)
            self._let_go(asked.gateway)

    def arrive(self, asked: Asked) -> None:
        """It comes to the worker."""
        raise NotImplementedError

    def _let_go(self, gateway: int) -> None:
        window = self._windows[gateway]
        while (asked := window.next()) is not None:
            asked.charged = window.cost
            self.clock.after(HOP_SECONDS, partial(self.arrive, asked))


class TensorHouse(House):
    """One device, and its batcher."""

    def __init__(self, clock: Clock, kind: Tensors, gateways: int, *, shared: bool) -> None:
        super().__init__(clock, kind.max_batch_size, gateways, shared=shared)
        self._kind = kind
        self._batcher: Batcher[Asked] = Batcher(kind.max_batch_size, shares=Shares(CREDIT))
        self._busy = False

    def arrive(self, asked: Asked) -> None:
        """Into the line."""
        tenant = asked.tenant if self.shared else ""
        self._batcher.add(Entry(asked, 1, None, self.clock.now, float("inf"), tenant=tenant))
        self._run()

    def _run(self) -> None:
        if not self._busy and len(self._batcher):
            batch, _ = self._batcher.take(self.clock.now)
            self._busy = True
            seconds = (self._kind.batch_ms + self._kind.row_ms * len(batch)) / 1000
            self.clock.after(seconds, partial(self._ran, batch, seconds))

    def _ran(self, batch: list[Entry[Asked]], seconds: float) -> None:
        self._busy = False
        self._batcher.ran(batch, seconds, self.clock.now)
        for entry in batch:
            self.clock.after(HOP_SECONDS, partial(self.answer, entry.item, seconds / len(batch)))
        self._run()


@dataclass(frozen=True, slots=True)
class Steps:
    """What a step of an engine costs: so many ms, and for each token; prompts of 16 tokens, 24 to 40 after them."""

    name: str
    step_ms: float
    token_ms: float
    rows: int = 16

    def capacity(self) -> float:
        """Requests a second with every row taken."""
        return self.rows * 1000 / (32 * (self.step_ms + self.token_ms * self.rows) + 16 * self.rows * self.token_ms)


class EngineHouse(House):
    """One engine, and its scheduler."""

    def __init__(self, clock: Clock, kind: Steps, gateways: int, *, shared: bool) -> None:
        super().__init__(clock, kind.rows, gateways, shared=shared)
        self._kind = kind
        self._core = Scheduler(
            SchedulerConfig(
                max_model_len=512,
                vocab_size=1000,
                num_blocks=4096,
                block_size=16,
                max_num_seqs=kind.rows,
                max_num_batched_tokens=512,
                eos_token_ids=frozenset(),
            )
        )
        self._asked: dict[str, Asked] = {}
        self._numbers, self._chance, self._busy = itertools.count(), Random(0), False

    def arrive(self, asked: Asked) -> None:
        """Into the line."""
        name = str(next(self._numbers))
        self._asked[name] = asked
        prompt = tuple(self._chance.randrange(1000) for _ in range(16))
        params = SamplingParams(max_tokens=self._chance.randint(24, 40), ignore_eos=True)
        tenant = asked.tenant if self.shared else ""
        self._core.submit(GenerationRequest(id=name, prompt=prompt, params=params, tenant=tenant))
        self._step()

    def _step(self) -> None:
        if self._busy or not len(self._core):
            return
        plan, self._busy = self._core.step(self.clock.now), True
        seconds = (self._kind.step_ms + self._kind.token_ms * sum(plan.counts)) / 1000

        def ran() -> None:
            self._busy = False
            for sequence in self._core.commit(plan, [7] * len(plan.sampling)):
                if sequence.finish_reason is not None:
                    asked = self._asked.pop(sequence.id)
                    cost = sequence.output_length * seconds / self._kind.rows
                    self.clock.after(HOP_SECONDS, partial(self.answer, asked, cost))
            self._step()

        self.clock.after(seconds, ran)


Kind = Tensors | Steps
STEPS = (
    Steps("tokens, flat steps", step_ms=8, token_ms=0.05),
    # As measured: the six million parameters of `kinds.py` on one core.
    Steps("tokens, measured", step_ms=3.8, token_ms=0.08),
    Steps("tokens, rows cost", step_ms=3, token_ms=0.6),
)


def run(kind: Kind, flood: float, options: argparse.Namespace, *, shared: bool) -> tuple[list[float], float]:
    """Seconds of the quiet tenants' requests, and the flooder's answers a second."""
    clock, chance = Clock(), Random(1)
    house: House = (
        TensorHouse(clock, kind, options.gateways, shared=shared)
        if isinstance(kind, Tensors)
        else EngineHouse(clock, kind, options.gateways, shared=shared)
    )

    def send(tenant: str, rate: float) -> None:
        house.ask(Asked(tenant, clock.now, chance.randrange(options.gateways)))
        clock.after(chance.expovariate(rate), partial(send, tenant, rate))

    for tenant in TENANTS:
        rate = kind.capacity() * options.share * (flood if tenant == "flooder" else 1)
        clock.after(chance.expovariate(rate), partial(send, tenant, rate))
    clock.run(options.seconds)
    quiet = [seconds for tenant in TENANTS[1:] for seconds in house.latencies[tenant]]
    return quiet, len(house.latencies["flooder"]) / options.seconds


def main() -> None:
    """All kinds: calm, a flood, and a flood without tenants."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1000)
    parser.add_argument("--gateways", type=int, default=1)
    parser.add_argument("--share", type=float, default=0.1, help="of the capacity, that each of five tenants sends")
    options = parser.parse_args()
    for kind in (*TENSORS, *STEPS):
        print(f"{kind.name}: capacity {kind.capacity():.0f}/s, p50 and p99 of the quiet ones in ms")
        before = 0.0
        for name, flood, shared in (("calm", 1, True), ("flood", 10, True), ("flood, open", 10, False)):
            quiet, answers = run(kind, flood, options, shared=shared)
            p99 = percentile(quiet, 0.99)
            before = before or p99
            line = f"{percentile(quiet, 0.5):8.1f} {p99:8.1f} {p99 / before - 1:+8.0%}"
            print(f"  {name:12}{line}   flooder {answers:.1f}/s")


if __name__ == "__main__":
    main()
