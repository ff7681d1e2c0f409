"""What each model version did since this gateway started: ModelStatistics and `headrace status` read it. Pure."""

from collections import Counter, deque
from dataclasses import dataclass, field
from itertools import takewhile

from headrace.inference.grpc_service_pb2 import (
    InferBatchStatistics,
    InferStatistics,
    ModelStatistics,
    StatisticDuration,
)
from headrace.v1.reply_pb2 import Receipt
from services.common.outcomes import Outcomes, bucket_of

WINDOW_SECONDS = 60.0
WINDOW_REQUESTS = 20_000


@dataclass(slots=True)
class _Sum:
    count: int = 0
    ns: int = 0

    def add(self, ns: int) -> None:
        self.count += 1
        self.ns += ns

    def proto(self) -> StatisticDuration:
        return StatisticDuration(count=self.count, ns=self.ns)


@dataclass(frozen=True, slots=True)
class Recent:
    """A window: requests per second and latency percentiles in milliseconds (0 without requests)."""

    rate: float
    p50_ms: float
    p99_ms: float


@dataclass(slots=True)
class ModelStats:
    """Counts and durations of one model version.

    A batch is seen through its requests' receipts: each of n requests counts for 1/n of an execution.
    """

    success: _Sum = field(default_factory=_Sum)
    failure: _Sum = field(default_factory=_Sum)
    queue: _Sum = field(default_factory=_Sum)
    compute: _Sum = field(default_factory=_Sum)
    rows: int = 0
    last_unix_ms: int = 0
    _executions: Counter[int] = field(default_factory=Counter)  # batch rows → executions × 10^6
    _compute_by_rows: Counter[int] = field(default_factory=Counter)  # batch rows → compute ns
    _failures: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW_REQUESTS))
    _recent: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=WINDOW_REQUESTS))

    def answered(self, now: float, unix_ms: int, seconds: float, rows: int, receipt: Receipt) -> None:
        """One request was answered after `seconds`; `now` is monotonic."""
        self.success.add(int(seconds * 1e9))
        self.queue.add((receipt.queue_us + receipt.batch_us) * 1000)
        self.rows += rows
        self.last_unix_ms = unix_ms
        self._computed(receipt, receipt.compute_us)
        self._recent.append((now, seconds))

    def _computed(self, receipt: Receipt, compute_us: int) -> None:
        share = max(1, receipt.batch_requests)
        self.compute.add(compute_us * 1000)
        self._executions[receipt.batch_rows] += 1_000_000 // share
        self._compute_by_rows[receipt.batch_rows] += compute_us * 1000 // share

    def ran(self, unix_ms: int, rows: int, receipt: Receipt, compute_us: int) -> None:
        """It ran as a step for a request to an ensemble: no caller's request, so it says nothing of latencies."""
        self.success.add(compute_us * 1000)
        self.rows += rows
        self.last_unix_ms = unix_ms
        self._computed(receipt, compute_us)

    def failed(self, now: float, seconds: float, *, blamed: bool) -> None:
        """One accepted request failed after `seconds`; `blamed`: through no fault of its caller."""
        self.failure.add(int(seconds * 1e9))
        if blamed:
            self._failures.append(now)

    def outcomes(self, now: float, since: float) -> Outcomes:
        """Of the last minute, but none before `since`."""
        begin = max(since, now - WINDOW_SECONDS)
        answered = Counter(bucket_of(seconds) for at, seconds in self._recent if at >= begin)
        return Outcomes(sum(at >= begin for at in self._failures), answered)

    def batch_sizes(self) -> dict[int, int]:
        """Rows per batch → batches."""
        return {rows: max(1, round(millionths / 1e6)) for rows, millionths in sorted(self._executions.items())}

    def recent(self, now: float, window: float = WINDOW_SECONDS) -> Recent:
        """The rate and latencies of the last `window` seconds, of a minute at most."""
        while self._recent and self._recent[0][0] < now - WINDOW_SECONDS:
            self._recent.popleft()
        within = takewhile(lambda each: each[0] >= now - window, reversed(self._recent))
        latencies = sorted(seconds for _, seconds in within)
        if not latencies:
            return Recent(0.0, 0.0, 0.0)
        full = len(latencies) == WINDOW_REQUESTS
        span = now - self._recent[0][0] if full else window
        return Recent(
            rate=len(latencies) / max(span, 1e-3),
            p50_ms=latencies[len(latencies) // 2] * 1000,
            p99_ms=latencies[min(len(latencies) - 1, len(latencies) * 99 // 100)] * 1000,
        )

    def proto(self, name: str, version: int) -> ModelStatistics:
        """As the protocol's statistics extension has it."""
        batches = self.batch_sizes()
        return ModelStatistics(
            name=name,
            version=str(version),
            last_inference=self.last_unix_ms,
            inference_count=self.rows,
            execution_count=sum(batches.values()),
            inference_stats=InferStatistics(
                success=self.success.proto(),
                fail=self.failure.proto(),
                queue=self.queue.proto(),
                compute_infer=self.compute.proto(),
            ),
            batch_stats=[
                InferBatchStatistics(
                    batch_size=rows,
                    compute_infer=StatisticDuration(count=count, ns=self._compute_by_rows[rows]),
                )
                for rows, count in batches.items()
            ],
        )
