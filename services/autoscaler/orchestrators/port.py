"""The port `Orchestrator`."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Instance:
    """One worker as its orchestrator sees it.

    Attributes:
        id: for `remove`.
        names: under which of these it reports to the fleet.
        age: seconds since it was asked for.
        leaving: it was told to stop.
    """

    id: str
    names: frozenset[str]
    age: float
    leaving: bool = False


class Orchestrator(Protocol):
    """Starts and stops workers. All methods raise Unavailable while the place that runs them cannot be reached."""

    @property
    def kind(self) -> str:
        """For people: "processes", "docker", "kubernetes"."""

    async def instances(self) -> list[Instance]:
        """Every worker that runs or is on its way. One that crashed and is not started again by itself is not there."""

    async def add(self, count: int) -> None:
        """Asks for more; returns before they are ready."""

    async def remove(self, ids: Collection[str]) -> None:
        """Tells these to finish what they began, hand back the rest and leave (SIGTERM); does not wait for it."""

    async def close(self) -> None:
        """Lets go of connections; workers stay."""
