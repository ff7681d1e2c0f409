"""What the policy is told to aim at. Pure."""

from dataclasses import dataclass
from enum import StrEnum

from services.common.errors import InvalidArgument


class Mode(StrEnum):
    """Which signal the number of workers follows.

    DRAIN_TIME: seconds of work. Enough workers for what arrives, at `utilisation`, and for what waits to be done in
        `drain_seconds`, seen from the moment at which a worker that is started now will be ready.
    QUEUE_LENGTH: requests accepted and not answered, `target` of them for each worker (KEDA's QueueLength).
    MESSAGE_RATE: requests arriving in a second, `target` of them for each worker (KEDA's MessageRate).
    ONGOING_REQUESTS: as QUEUE_LENGTH, averaged over the windows (Ray Serve's target_ongoing_requests, Knative's
        concurrency). A target over what a worker really runs at once makes the number swing: while workers keep up,
        little is ongoing, so they leave; then requests pile up, and they are called back. DRAIN_TIME has no such
        target to get wrong.
    """

    DRAIN_TIME = "drain_time"
    QUEUE_LENGTH = "queue_length"
    MESSAGE_RATE = "message_rate"
    ONGOING_REQUESTS = "ongoing_requests"


@dataclass(frozen=True, slots=True)
class Limits:
    """The fewest and the most workers. Raises InvalidArgument unless 0 <= least <= most and most > 0."""

    least: int = 0
    most: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.least <= self.most or self.most < 1:
            raise InvalidArgument(
                f"limits {self.least}..{self.most}: expected 0 or more for the fewest, and at least 1 and no less than"
                " the fewest for the most workers"
            )

    def clamp(self, workers: int) -> int:
        """The nearest number that is allowed."""
        return min(max(workers, self.least), self.most)


@dataclass(frozen=True, slots=True)
class PolicyConfig:
    """Times in seconds.

    Attributes:
        target: requests, or requests a second, for each worker; not used by DRAIN_TIME.
        drain_seconds: in what time a backlog is to be worked off, once workers are there for it.
        jobs_seconds: the same for what waits of jobs, for which nobody waits. DRAIN_TIME only.
        utilisation: the share of its time that a worker is to be busy.
        stable_window, panic_window: over which arrivals are averaged, for every day and for bursts.
        panic_threshold: how many times the present workers the panic window must call for to begin a panic; in a panic
            no worker leaves, until `stable_window` after the last such moment.
        scale_down_window: a worker leaves only once it was not called for during this long.
        burst_half_life: traffic that came in bursts comes in bursts again, and no worker starts as fast as one that is
            there: the load of the worst `panic_window` is kept covered, fading by half in this time, until nothing came
            for `idle_seconds`. DRAIN_TIME only.
        idle_seconds: how long nothing may wait or arrive before the last worker leaves.
        up_factor, up_workers: within `up_period` the number may grow to `up_factor` times what it was, or by
            `up_workers`, whichever is more.
        down_factor: within `down_period` the number may shrink to this share, or by one.
        stale_seconds: signals older than this are not believed.
        start_seconds, service_seconds: assumed until they have been measured.
    """

    limits: Limits = Limits()
    mode: Mode = Mode.DRAIN_TIME
    target: float = 20.0
    drain_seconds: float = 5.0
    jobs_seconds: float = 300.0
    utilisation: float = 0.7
    stable_window: float = 60.0
    panic_window: float = 6.0
    panic_threshold: float = 2.0
    scale_down_window: float = 60.0
    burst_half_life: float = 1200.0
    idle_seconds: float = 60.0
    up_factor: float = 4.0
    up_workers: int = 8
    up_period: float = 5.0
    down_factor: float = 0.5
    down_period: float = 10.0
    stale_seconds: float = 5.0
    start_seconds: float = 5.0
    service_seconds: float = 0.05

    def __post_init__(self) -> None:
        positive = (
            "target",
            "drain_seconds",
            "jobs_seconds",
            "stable_window",
            "panic_window",
            "up_period",
            "down_period",
            "up_factor",
        )
        for name in (*positive, "service_seconds", "burst_half_life"):
            if getattr(self, name) <= 0:
                raise InvalidArgument(f"{name} is {getattr(self, name)}; expected more than 0")
        if not 0 < self.utilisation <= 1 or not 0 <= self.down_factor < 1:
            raise InvalidArgument(
                f"utilisation is {self.utilisation} and down_factor {self.down_factor}; expected shares of 1"
            )
        if self.panic_window > self.stable_window:
            raise InvalidArgument(
                f"panic_window {self.panic_window} s is longer than stable_window {self.stable_window} s"
            )
