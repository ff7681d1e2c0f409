"""The metrics of text generation, typed: OpenTelemetry's gen_ai names for what callers feel, our own for the engine.

Names and buckets: https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-metrics/
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from services.common.telemetry.ledger import Attributes, Counter, Family, Gauge, Histogram, Ledger

REQUEST_SECONDS = tuple(0.01 * 2**power for power in range(14))
FIRST_TOKEN_SECONDS = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
TOKEN_SECONDS = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
TOKENS = tuple(float(4**power) for power in range(14))


class GenerationSeries:
    """What a gateway counts of one language model."""

    __slots__ = ("_first", "_input", "_output", "_request", "_token")

    def __init__(self, owner: "GenerationInstruments", labels: dict[str, str | int]) -> None:
        def histogram(family: Family, bounds: tuple[float, ...], **more: str) -> Histogram:
            family.add({**labels, **more}, made := Histogram(bounds))
            return made

        self._request = histogram(owner.request, REQUEST_SECONDS)
        self._first = histogram(owner.first, FIRST_TOKEN_SECONDS)
        self._token = histogram(owner.token, TOKEN_SECONDS)
        self._input = histogram(owner.usage, TOKENS, **{"gen_ai.token.type": "input"})
        self._output = histogram(owner.usage, TOKENS, **{"gen_ai.token.type": "output"})

    def began(self, seconds: float) -> None:
        """The first token came."""
        self._first.record(seconds)

    def ended(
        self, seconds: float, first: float, prompt_tokens: int, completion_tokens: int, *, timed: bool = True
    ) -> None:
        """The last token came after `seconds`, the first after `first`.

        Args:
            timed: a caller waited for it: how long that took is told.
        """
        self._input.record(prompt_tokens)
        self._output.record(completion_tokens)
        if not timed:
            return
        self._request.record(seconds)
        if completion_tokens > 1:
            self._token.record((seconds - first) / (completion_tokens - 1))


class GenerationInstruments:
    """What a gateway counts of generations. Made once a process."""

    def __init__(self, ledger: Ledger) -> None:
        family = ledger.family
        self.request = family("gen_ai.server.request.duration", "s", "Generations that came to their end")
        self.first = family("gen_ai.server.time_to_first_token", "s", "From acceptance to the first token")
        self.token = family("gen_ai.server.time_per_output_token", "s", "Between tokens after the first, on average")
        self.usage = family("gen_ai.client.token.usage", "{token}", "Tokens of prompts and of answers")
        self._series: dict[tuple[str, int], GenerationSeries] = {}

    def of(self, model: str, version: int) -> GenerationSeries:
        """The series of one model version."""
        found = self._series.get((model, version))
        if found is None:
            found = self._series[model, version] = GenerationSeries(self, _labels(model, version))
        return found

    def forget(self, model: str, version: int) -> None:
        """The version is gone: its series are no longer exported."""
        if self._series.pop((model, version), None) is not None:
            for family in (self.request, self.first, self.token, self.usage):
                family.forget(_labels(model, version))


class Stats(Protocol):
    """What an engine tells of itself: a worker's EngineStats. Counts are since its start."""

    @property
    def running(self) -> int: ...
    @property
    def waiting(self) -> int: ...
    @property
    def kv_blocks_used(self) -> int: ...
    @property
    def kv_blocks_total(self) -> int: ...
    @property
    def prefix_tokens_hit(self) -> int: ...
    @property
    def prefix_tokens_asked(self) -> int: ...
    @property
    def preemptions(self) -> int: ...


@dataclass(frozen=True, slots=True)
class _Name:
    metric: str
    unit: str
    description: str


_GAUGES = {
    "running": _Name("headrace.llm.sequences.running", "{sequence}", "Sequences in the engine's steps"),
    "waiting": _Name("headrace.llm.sequences.waiting", "{sequence}", "Sequences that wait for room"),
    "kv_blocks_used": _Name("headrace.llm.kv.blocks.used", "{block}", "KV blocks that sequences hold"),
    "kv_blocks_total": _Name("headrace.llm.kv.blocks.total", "{block}", "KV blocks in the pool"),
}
_COUNTERS = {
    "prefix_tokens_hit": _Name("headrace.llm.prefix.tokens.hit", "{token}", "Prompt tokens found in the prefix cache"),
    "prefix_tokens_asked": _Name("headrace.llm.prefix.tokens.asked", "{token}", "Prompt tokens looked up there"),
    "preemptions": _Name("headrace.llm.preemptions", "{sequence}", "Sequences that lost their blocks for a while"),
}


class EngineSeries:
    """What a worker exports of one engine; gauges are read whenever somebody asks.

    Args:
        stats: the engine's own; None while there is no engine.
    """

    def __init__(self, ledger: Ledger, model: str, version: int, stats: Callable[[], Stats | None]) -> None:
        self._stats = stats
        self._labels: Attributes = _labels(model, version)
        self._families: list[Family] = []
        self._counters: dict[str, Counter] = {}
        self._seen: dict[str, int] = {}
        for field, name in _GAUGES.items():
            self._family(ledger, name).add(self._labels, Gauge(lambda field=field: self._now(field)))  # type: ignore[misc]  # a default
        for field, name in _COUNTERS.items():
            self._counters[field] = Counter()
            self._family(ledger, name).add(self._labels, self._counters[field])

    def step(self) -> None:
        """The engine has made a step: its counts are taken over."""
        stats = self._stats()
        if stats is None:
            return
        for field, counter in self._counters.items():
            now, seen = getattr(stats, field), self._seen.get(field, 0)
            # An engine that was loaded anew counts from nothing.
            counter.add(now - seen if now >= seen else now)
            self._seen[field] = now

    def forget(self) -> None:
        """The version was deleted: nothing of it is exported any more."""
        for family in self._families:
            family.forget(self._labels)

    def _family(self, ledger: Ledger, name: _Name) -> Family:
        family = ledger.family(name.metric, name.unit, name.description)
        self._families.append(family)
        return family

    def _now(self, field: str) -> int:
        stats = self._stats()
        return 0 if stats is None else int(getattr(stats, field))


def _labels(model: str, version: int) -> dict[str, str | int]:
    return {
        "gen_ai.operation.name": "text_completion",
        "gen_ai.provider.name": "headrace",
        "gen_ai.request.model": model,
        "headrace.model.name": model,
        "headrace.model.version": version,
    }
