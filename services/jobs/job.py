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
class Target:
    """Whose requests they are; version 0: whichever is served to those who name none."""

    model: str
    version: int = 0

    def __str__(self) -> str:
        return f"{self.model}:{self.version}" if self.version else self.model

    @classmethod
    def named(cls, text: str) -> "Target":
        """NAME or NAME:VERSION; an alias is taken for no version."""
        model, _, version = text.partition(":")
        return cls(model, int(version) if version.isdecimal() and version.isascii() else 0)


@dataclass(frozen=True, slots=True)
class Spec:
    """What was submitted; it never changes. Times are milliseconds since the epoch.

    Attributes:
        requests, chunks: how many there are.
        input_file: the uploaded file that it was made of.
        tenant: whose it is; empty: it was submitted where no keys are asked for.
        models: how many requests there are for each Target, by its text; those with the most only.
    """

    id: str
    requests: int
    chunks: int
    created_ms: int
    window_seconds: int
    endpoint: str = ""
    input_file: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    tenant: str = ""
    models: dict[str, int] = field(default_factory=dict)

    def unsent(self, chunks: int) -> dict[Target, int]:
        """About how many requests there are for each model in so many of its chunks."""
        return {Target.named(text): -(-count * chunks // self.chunks) for text, count in self.models.items()}

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
