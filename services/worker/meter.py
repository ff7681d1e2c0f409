"""What a lane has done since its start: the fleet is told, and the autoscaler learns from it. Pure."""

from dataclasses import dataclass

from headrace.v1.fleet_pb2 import HeldModel

# A model that runs for no longer than this costs less where it is than on its way to another thread and back: only
# while it runs could anything else be done meanwhile. Numpy and protobuf before and after it hold Python's lock in
# either place, and may take ten times as much.
BRIEF_SECONDS = 0.0002
_FORGET = 0.9


@dataclass(slots=True)
class Meter:
    """Batches run, requests in them, and the device's time that they took, in microseconds."""

    batches: int = 0
    requests: int = 0
    busy_us: int = 0
    # The longest of the last runs; older ones count for less. Nothing is brief before some dozens have shown it.
    _longest: float = 1.0

    @property
    def brief(self) -> bool:
        """The next batch will be over in no time, if it is like the last ones."""
        return self._longest < BRIEF_SECONDS

    def ran(self, requests: int, seconds: float, run_seconds: float) -> None:
        """One more batch; the model itself ran for `run_seconds` of its `seconds`."""
        self.batches += 1
        self.requests += requests
        self.busy_us += round(seconds * 1e6)
        self._longest = max(run_seconds, seconds / 10, self._longest * _FORGET)

    def tell(self, held: HeldModel) -> None:
        """Puts it into the fleet report."""
        held.batches, held.requests, held.busy_us = self.batches, self.requests, self.busy_us
