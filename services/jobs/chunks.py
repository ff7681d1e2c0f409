"""How a job is cut, and how its results are put together again. Pure.

A chunk is what is kept, run and written as one: its results are one object, whose name follows from the job and the
chunk's number, written only if it is not there. So whoever runs a chunk again, after any crash, changes nothing that
was written, and each request has one result in the end.
"""

import json
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, field
from enum import Enum

# So much is run again at most, for each chunk under way, after a crash.
MOST_REQUESTS = 32
MOST_BYTES = 4 * 1024 * 1024


class Kind(Enum):
    """Which results."""

    ALL = "all"
    OUTPUT = "output"
    ERRORS = "errors"


@dataclass(slots=True)
class Cutter:
    """Gathers lines into chunks."""

    most_requests: int = MOST_REQUESTS
    most_bytes: int = MOST_BYTES
    _lines: list[bytes] = field(default_factory=list)
    _bytes: int = 0

    def add(self, line: bytes) -> list[bytes] | None:
        """Takes a line in; returns the chunk that is full without it, or with it."""
        full = None
        if self._lines and self._bytes + len(line) > self.most_bytes:
            full = self.rest()
        self._lines.append(line)
        self._bytes += len(line)
        return self.rest() if full is None and len(self._lines) >= self.most_requests else full

    def rest(self) -> list[bytes]:
        """What has gathered, which is then empty."""
        lines, self._lines, self._bytes = self._lines, [], 0
        return lines


@dataclass(frozen=True, slots=True)
class Counts:
    """Requests that were answered, and those that failed."""

    completed: int = 0
    failed: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(self.completed + other.completed, self.failed + other.failed)


def remaining(chunks: int, done: Set[int]) -> list[int]:
    """The chunks that are still to be run, in order."""
    return [number for number in range(chunks) if number not in done]


def pack(lines: Sequence[bytes], failed: Sequence[bool]) -> bytes:
    """A chunk's results as they are kept: which lines are errors, then the lines."""
    head = {"requests": len(lines), "errors": [place for place, bad in enumerate(failed) if bad]}
    return b"\n".join([json.dumps(head, separators=(",", ":")).encode(), *lines])


def counts(packed: bytes) -> Counts:
    """Of a chunk's results; the beginning of them, up to the first line's end, is enough."""
    head = json.loads(packed.partition(b"\n")[0])
    return Counts(head["requests"] - len(head["errors"]), len(head["errors"]))


def select(packed: bytes, kind: Kind) -> bytes:
    """The lines of one kind, each with its line feed."""
    first, *lines = packed.split(b"\n")
    errors = set(json.loads(first)["errors"])
    chosen: Iterable[bytes] = lines
    if kind is not Kind.ALL:
        chosen = (line for place, line in enumerate(lines) if (place in errors) is (kind is Kind.ERRORS))
    return b"".join(line + b"\n" for line in chosen)
