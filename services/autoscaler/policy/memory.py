"""What one decision leaves for the next. Pure."""

from dataclasses import dataclass, field

from services.autoscaler.policy.windows import History, Peaks


@dataclass(frozen=True, slots=True)
class Memory:
    """What one decision leaves for the next. A fresh one lets nobody leave for a whole scale-down window.

    Attributes:
        arrived: each queue's count of arrivals when last seen.
        burst_load: workers that the arrivals of the worst panic window would keep busy, faded since.
        wanted: what was called for lately.
        targets: what was decided lately, for the limits to its rate of change.
        panic_until: end of the panic, if one is on.
        active_at: when something last waited or arrived.
        since: when this memory began.
    """

    history: History = field(default_factory=History)
    arrived: dict[str, float] = field(default_factory=dict)
    burst_load: float = 0.0
    wanted: Peaks = field(default_factory=Peaks)
    targets: tuple[tuple[float, int], ...] = ()
    panic_until: float | None = None
    active_at: float | None = None
    since: float | None = None

    def panics(self, now: float) -> bool:
        """A burst is on."""
        return self.panic_until is not None and now < self.panic_until
