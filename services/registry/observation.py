"""The registry's own metrics."""

from services.common.telemetry.ledger import Counter, Ledger
from services.registry.collector import Collected


class GarbageObserver:
    """What became of collections, those by hand among them. Made once a process."""

    def __init__(self, ledger: Ledger) -> None:
        collections = ledger.family(
            "headrace.garbage.collections", "{collection}", "Collections of unused files, by end"
        )
        files = ledger.family("headrace.garbage.files", "{file}", "Unused files that were removed")
        size = ledger.family("headrace.garbage.size", "By", "Bytes of unused files that were removed")
        # From the start: of a counter that appears with its first count, Prometheus sees no increase.
        collections.add({"headrace.garbage.outcome": "done"}, done := Counter())
        collections.add({"headrace.garbage.outcome": "failed"}, failed := Counter())
        files.add({}, removed := Counter())
        size.add({}, freed := Counter())
        self._done, self._failed, self._files, self._bytes = done, failed, removed, freed

    def ended(self, found: Collected | None) -> None:
        """A collection came to its end; None: it failed, whatever it had removed by then."""
        if found is None:
            self._failed.add()
            return
        self._done.add()
        self._files.add(len(found.collected))
        self._bytes.add(sum(blob.size for blob in found.collected))
