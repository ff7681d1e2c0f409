"""Jobs seen from outside: what was run and how it ended, as metrics."""

from services.common.telemetry.ledger import Counter, Gauge, Ledger
from services.jobs.chunks import Counts
from services.jobs.job import State

_ENDS = (State.COMPLETED, State.CANCELLED, State.EXPIRED)


class JobObserver:
    """What a job service exports. Made once a process; only the active one counts anything."""

    def __init__(self, ledger: Ledger) -> None:
        requests = ledger.family(
            "headrace.jobs.requests", "{request}", "Requests of jobs that have a result, by outcome"
        )
        ended = ledger.family("headrace.jobs.ended", "{job}", "Jobs that have ended, by how")
        running = ledger.family("headrace.jobs.running", "{job}", "Jobs under way in this process")
        # From the start: of a counter that appears with its first count, Prometheus sees no increase.
        requests.add({"headrace.job.outcome": "answered"}, answered := Counter())
        requests.add({"headrace.job.outcome": "failed"}, failed := Counter())
        running.add({}, gauge := Gauge())
        self._answered, self._failed, self._running = answered, failed, gauge
        self._ended: dict[State, Counter] = {}
        for state in _ENDS:
            ended.add({"headrace.job.state": state.value}, counter := Counter())
            self._ended[state] = counter

    def wrote(self, counts: Counts) -> None:
        """A chunk's results were written."""
        self._answered.value += counts.completed
        self._failed.value += counts.failed

    def running(self, jobs: int) -> None:
        """So many jobs are under way."""
        self._running.set(jobs)

    def ended(self, state: State) -> None:
        """A job has ended."""
        self._ended[state].add()
