"""What a lane has done since its start: the fleet is told, and the autoscaler learns from it. Pure."""

from dataclasses import dataclass

from headrace.v1.fleet_pb2 import HeldModel


@dataclass(slots=True)
class Meter:
    """Batches run, requests in them, and the device's time that they took, in microseconds."""

    batches: int = 0
    requests: int = 0
    busy_us: int = 0

    def ran(self, requests: int, seconds: float) -> None:
        """One more batch."""
        self.batches += 1
        self.requests += requests
        self.busy_us += round(seconds * 1e6)

    def tell(self, held: HeldModel) -> None:
        """Puts it into the fleet report."""
        held.batches, held.requests, held.busy_us = self.batches, self.requests, self.busy_us
