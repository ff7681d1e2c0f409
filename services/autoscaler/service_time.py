"""How long a worker is busy for one request, learned from what batches cost. Pure."""

from dataclasses import dataclass

# What a batch said counts half after this many further requests.
HALF_LIFE_REQUESTS = 400.0
# How far beyond the largest batch seen of late the line is believed.
REACH = 2.0


@dataclass(slots=True)
class ServiceTime:
    """Least squares over batches of late: seconds = fixed + each x requests.

    A batch of one costs far more for each request than a full one, and queues that are long make full ones: what a
    backlog costs must be read off at the full batch. Older batches fade.
    """

    _weight: float = 0.0
    _requests: float = 0.0
    _seconds: float = 0.0
    _squares: float = 0.0
    _products: float = 0.0
    _largest: float = 0.0

    def note(self, batches: float, requests: float, seconds: float) -> None:
        """Some batches of late, by their sums; `seconds` of a worker's time."""
        if batches <= 0:
            return
        fade = 0.5 ** (requests / HALF_LIFE_REQUESTS)
        mean = requests / batches
        self._weight = self._weight * fade + batches
        self._requests = self._requests * fade + requests
        self._seconds = self._seconds * fade + seconds
        self._squares = self._squares * fade + requests * mean
        self._products = self._products * fade + seconds * mean
        self._largest = max(self._largest * fade, mean)

    def per_request(self, max_batch: int) -> float | None:
        """Seconds for one request of a full batch, as far as batches of that size can be judged; None: nothing seen.

        Args:
            max_batch: 0 where requests come and go with each step: then it is the busy time that each cost so far.
        """
        if not self._requests:
            return None
        if not max_batch:
            return self._seconds / self._requests
        mean, mean_seconds = self._requests / self._weight, self._seconds / self._weight
        size = max(mean, min(float(max(1, max_batch)), self._largest * REACH))
        variance = self._squares / self._weight - mean * mean
        if variance < 1e-3 * mean * mean:
            return mean_seconds / mean
        slope = (self._products / self._weight - mean * mean_seconds) / variance
        # A line through noise must promise neither free requests nor batches of negative cost.
        each = min(max(slope, 0.0), mean_seconds / mean)
        fixed = mean_seconds - each * mean
        return each + fixed / size
