"""What a job is, and in which state. Pure."""

from dataclasses import dataclass, field
from enum import Enum

from services.jobs.chunks import Counts


class State(Enum):
    """See JobState in jobs.proto."""

    RUNNING = "running"
    CANCELLING = "cancelling"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Spec:
    """What was submitted; it never changes. Times are milliseconds since the epoch.

    Attributes:
        requests, chunks: how many there are.
        input_file: the uploaded file that it was made of.
    """

    id: str
    requests: int
    chunks: int
    created_ms: int
    window_seconds: int
    endpoint: str = ""
    input_file: str = ""
    metadata: dict[str, str] = field(default_factory=dict)

    @property
    def expires_ms(self) -> int:
        """When its time is up."""
        return self.created_ms + self.window_seconds * 1000


@dataclass(frozen=True, slots=True)
class End:
    """How it ended, and when."""

    state: str
    at_ms: int
    completed: int
    failed: int


@dataclass(frozen=True, slots=True)
class View:
    """A job at one moment.

    Attributes:
        cancelled_ms, end: None: it was not cancelled; it has not ended.
    """

    spec: Spec
    counts: Counts
    cancelled_ms: int | None = None
    end: End | None = None

    @property
    def state(self) -> State:
        """Where it stands."""
        if self.end is not None:
            return State(self.end.state)
        return State.RUNNING if self.cancelled_ms is None else State.CANCELLING


class Why(Enum):
    """Why requests of a job are not run: the state that it ends in, and the error that they get."""

    CANCELLED = (State.CANCELLED, "batch_cancelled", "the job was cancelled before this request was answered")
    EXPIRED = (State.EXPIRED, "batch_expired", "the job's time was up before this request was answered")

    @property
    def state(self) -> State:
        """What the job ends as."""
        return self.value[0]

    @property
    def error(self) -> tuple[str, str]:
        """Code and message."""
        return self.value[1], self.value[2]
