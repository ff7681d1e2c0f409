"""The processor time of a subject's processes, from /proc: what a busy machine disturbs least."""

import os
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def descendants(root: int) -> set[int]:
    """All living processes below `root`."""
    parents = {int(path.name): fields[1] for path in Path("/proc").glob("[0-9]*") if (fields := _stat(path))}
    found: set[int] = set()
    below = {root}
    while below:
        below = {pid for pid, parent in parents.items() if int(parent) in below}
        found |= below
    return found


def cpu_seconds(pids: set[int]) -> float:
    """User and system time of these processes; those that ended count for nothing."""
    stats = [_stat(Path(f"/proc/{pid}")) for pid in pids]
    return sum(int(fields[11]) + int(fields[12]) for fields in stats if fields) / _TICKS


def _stat(process: Path) -> list[str]:
    """The fields of /proc/PID/stat behind the command's name; empty if the process has ended."""
    try:
        return (process / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
