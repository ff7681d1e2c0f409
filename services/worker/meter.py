"""What a lane has done since its start: the fleet is told, and the autoscaler learns from it. Pure."""

from dataclasses import dataclass

from headrace.v1.fleet_pb2 import HeldModel


# A batch that is over in this time costs less where it is than on its way to another thread and back; and while numpy
# and protobuf work on it, it has Python's lock in either place.
BRIEF_SECONDS = 0.002
_FORGET = 0.9


@dataclass(slots=True)
class Meter:
    """Batches run, requests in them, and the device's time that they took, in microseconds."""

    batches: int = 0
    requests: int = 0
    busy_us: int = 0
    # The longest of the last batches; older ones count for less. Nothing is brief before some dozens have shown it.
    _longest: float = 1.0

    @property
    def brief(self) -> bool:
        """The next batch will be over in no time, if it is like the last ones."""
        return self._longest < BRIEF_SECONDS

    def ran(self, requests: int, seconds: float) -> None:
        """One more batch."""
        self.batches += 1
        self.requests += requests
        self.busy_us += round(seconds * 1e6)
        self._longest = max(seconds, self._longest * _FORGET)

    def tell(self, held: HeldModel) -> None:
        """Puts it into the fleet report."""
        held.batches, held.requests, held.busy_us = self.batches, self.requests, self.busy_us
