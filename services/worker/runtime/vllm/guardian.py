"""Ends processes whose owner has died: `python -m services.worker.runtime.vllm.guardian PID …`.

vLLM's engine runs in processes of its own, which outlive a worker that is killed and would hold its memory for ever.
This one waits for the end of its standard input, which the kernel closes when the worker is gone, however that came.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path


class Guardian:
    """Watches over processes for as long as this one lives."""

    def __init__(self, pids: Iterable[int]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "services.worker.runtime.vllm.guardian", *map(str, pids)],
            stdin=subprocess.PIPE,
            start_new_session=True,  # what is sent to the worker's group is not for the one that outlives it
        )

    def dismiss(self) -> None:
        """They have ended by themselves."""
        self._process.kill()
        self._process.wait()
        assert self._process.stdin is not None
        self._process.stdin.close()


def tree(pid: int) -> list[int]:
    """A process, its children, and so on."""
    children: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(FileNotFoundError):  # a thread that has just ended
            children += map(int, task.read_text().split())
    return [pid, *(each for child in children for each in tree(child))]


def main(pids: list[int]) -> None:
    """Waits, then kills."""
    sys.stdin.buffer.read()
    # All are looked up before the first one ends: its children would no longer be found.
    for doomed in [each for pid in pids for each in tree(pid)]:
        with suppress(ProcessLookupError):
            os.kill(doomed, signal.SIGKILL)


if __name__ == "__main__":
    main([int(argument) for argument in sys.argv[1:]])
