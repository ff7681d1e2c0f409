"""Children of `headrace up`, with small modules of the test's own as the children."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from headrace.cli.supervisor import Child, StartError

ROOT = Path(__file__).resolve().parents[2]
STOPS = "import signal, sys\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\n"
GOOD = f"{STOPS}print('ready toy 127.0.0.1:1', flush=True)\nsignal.pause()"
LOUD = (
    f"{STOPS}print('ready toy 127.0.0.1:1', flush=True)\n"
    "for _ in range(4000): print('x' * 100, flush=True)\n"
    "print('said it all', flush=True)\nsignal.pause()"
)
FAILING = "import sys; sys.exit('no luck: the disk is full')"


def child(tmp_path: Path, source: str) -> Child:
    (tmp_path / "toy.py").write_text(source)
    return Child("toy", "toy", {"PYTHONPATH": str(tmp_path)}, tmp_path / "toy.log")


class Watcher:
    """Notes what the supervisor tells."""

    def __init__(self) -> None:
        self.codes: list[int] = []
        self.restarted = asyncio.Event()

    def on_crash(self, child: Child, code: int) -> None:
        self.codes.append(code)


async def test_a_child_that_crashes_is_started_again_and_one_that_is_stopped_is_not(tmp_path: Path) -> None:
    toy, watcher = child(tmp_path, GOOD), Watcher()
    await toy.start()
    assert toy.address == "127.0.0.1:1"
    toy.task = asyncio.create_task(toy.keep(watcher.on_crash, watcher.restarted.set))
    assert toy.process is not None
    first = toy.process.pid
    os.kill(first, signal.SIGKILL)
    await asyncio.wait_for(watcher.restarted.wait(), 20)
    assert toy.process.pid != first
    await toy.stop()
    assert toy.process.returncode == 0
    assert (watcher.codes, toy.restarts) == ([-signal.SIGKILL], 1)


async def test_a_child_that_does_not_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"(?s)toy did not start.*the disk is full"):
        await child(tmp_path, FAILING).start()


async def test_a_child_that_prints_much_is_not_blocked(tmp_path: Path) -> None:
    toy = child(tmp_path, LOUD)
    await toy.start()
    async with asyncio.timeout(20):
        # A file has no event to wait for.
        while "said it all" not in toy.log.read_text():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await toy.stop()


async def test_children_die_with_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    (tmp_path / "toy.py").write_text(GOOD)
    parent = (
        "import asyncio, pathlib, os, sys\nfrom headrace.cli.supervisor import Child\n"
        "async def main():\n"
        "    toy = Child('toy', 'toy', {}, pathlib.Path(sys.argv[1]) / 'toy.log')\n"
        "    await toy.start()\n    print(toy.process.pid, flush=True)\n    await asyncio.sleep(600)\n"
        "asyncio.run(main())"
    )
    supervisor = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        parent,
        str(tmp_path),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
    )
    assert supervisor.stdout is not None
    pid = int(await asyncio.wait_for(supervisor.stdout.readline(), 30))
    child_fd = os.pidfd_open(pid)
    supervisor.kill()
    await supervisor.wait()
    gone = asyncio.Event()
    asyncio.get_running_loop().add_reader(child_fd, gone.set)  # readable once the process has ended
    await asyncio.wait_for(gone.wait(), 20)
    asyncio.get_running_loop().remove_reader(child_fd)
    os.close(child_fd)
