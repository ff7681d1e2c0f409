"""What a reader must be told about one setting: nothing of a Triton repository is dropped silently."""

from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """What becomes of a setting, mildest first."""

    # It is served, but not as it was.
    CHANGED = "changed"
    # It has no equivalent; the model is imported without it.
    LEFT_OUT = "left out"
    # The model, or the version, is not imported.
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Finding:
    """One row of the table of warnings.

    Args:
        setting: dotted, as in config.pbtxt, or a path in the repository.
        reason: why, and what to do.
    """

    setting: str
    outcome: Outcome
    reason: str


class Refused(Exception):
    """The model or the version cannot be imported."""

    def __init__(self, setting: str, reason: str) -> None:
        super().__init__(f"{setting}: {reason}")
        self.finding = Finding(setting, Outcome.REFUSED, reason)
