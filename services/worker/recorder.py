"""A flight recorder: which model this process was busy with, in a file that outlives it.

A model can end its worker's process: a runtime that crashes on its graph, a kernel that runs out of memory. The next
process of the same worker reads here which one it was, and does not go down with it for ever: a version that ended
processes again and again, with no success in between, is refused for a while like one that fails to load.
"""

import json
import mmap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from services.worker.placement import Key
from services.worker.strikes import NO_STRIKES, Strikes, struck

SLOT_BYTES = 256


@dataclass(frozen=True, slots=True)
class Slot:
    """What is written while something runs: prepared once, because batches are many."""

    key: Key
    offset: int
    line: bytes


class Recorder:
    """The recorder of one worker.

    Args:
        folder: where workers of this machine keep theirs.
        worker_id: the same for each process of the worker; empty: nothing is remembered.
    """

    def __init__(self, folder: Path, worker_id: str) -> None:
        self._busy = {0: 0, SLOT_BYTES: 0}
        self._strikes: dict[Key, Strikes] = {}
        self._ledger: Path | None = None
        if not worker_id:
            self._slots = mmap.mmap(-1, 2 * SLOT_BYTES)
            return
        folder.mkdir(parents=True, exist_ok=True)
        self._ledger = folder / f"{worker_id}.strikes.json"
        self._strikes = _read(self._ledger)
        path = folder / f"{worker_id}.doing"
        if not path.exists() or path.stat().st_size != 2 * SLOT_BYTES:
            path.write_bytes(bytes(2 * SLOT_BYTES))
        with path.open("r+b") as file:
            self._slots = mmap.mmap(file.fileno(), 2 * SLOT_BYTES)
        self._blame()

    def running(self, key: Key) -> Slot:
        """For `during`: the model runs a batch."""
        return Slot(key, 0, _line(key))

    def loading(self, key: Key) -> Slot:
        """For `during`: the model is loaded or warmed up."""
        return Slot(key, SLOT_BYTES, _line(key))

    @contextmanager
    def during(self, slot: Slot) -> Iterator[None]:
        """While the block runs, a process that ends has ended by this; a block that ends clears the model's name."""
        self._slots[slot.offset : slot.offset + SLOT_BYTES] = slot.line
        self._busy[slot.offset] += 1
        try:
            yield
        finally:
            self._busy[slot.offset] -= 1
            if not self._busy[slot.offset]:  # a model may run several batches at a time
                self._slots[slot.offset : slot.offset + SLOT_BYTES] = bytes(SLOT_BYTES)
            if slot.key in self._strikes:
                self._succeeded(slot)

    def strikes(self, key: Key) -> Strikes:
        """How often the model ended a process since it last did not."""
        return self._strikes.get(key, NO_STRIKES)

    def _blame(self) -> None:
        """Reads what the last process was busy with when it ended."""
        for offset in (0, SLOT_BYTES):
            line = self._slots[offset : offset + SLOT_BYTES].rstrip(b"\0")
            self._slots[offset : offset + SLOT_BYTES] = bytes(SLOT_BYTES)
            if line:
                name, _, version = line.decode().rpartition("\n")
                key = (name, int(version))
                self._strikes[key] = struck(self.strikes(key), loading=offset > 0, now=time.time())
        self._write()

    def _succeeded(self, slot: Slot) -> None:
        """A load that ended well says nothing of runs; a run says that the load was good, too."""
        left = Strikes(0, self._strikes[slot.key].runs, self._strikes[slot.key].at)
        if slot.offset == 0 or not left.runs:
            del self._strikes[slot.key]
        else:
            self._strikes[slot.key] = left
        self._write()

    def _write(self) -> None:
        if self._ledger is not None:
            said = [{"name": key[0], "version": key[1], **asdict(item)} for key, item in self._strikes.items()]
            partial = self._ledger.with_suffix(".partial")
            partial.write_text(json.dumps(said))
            partial.replace(self._ledger)


def _line(key: Key) -> bytes:
    return f"{key[0]}\n{key[1]}".encode().ljust(SLOT_BYTES, b"\0")


def _read(path: Path) -> dict[Key, Strikes]:
    """A ledger that cannot be read is begun anew: it only costs another death."""
    try:
        said = json.loads(path.read_text())
        return {
            (item["name"], item["version"]): Strikes(item["loads"], item["runs"], float(item["at"])) for item in said
        }
    except (OSError, ValueError, TypeError, KeyError):
        return {}
