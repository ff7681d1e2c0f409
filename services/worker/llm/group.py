"""The ranks of one replica: launched, supervised and ended as one.

Rank 0 is the engine's thread. It starts a process for each other rank (`rank.py`) and sends it every plan down its
standard input; the tensors are summed by torch.distributed, gloo on CPUs and NCCL on CUDA. Whoever loses a peer goes:

    a rank dies    its watcher ends the others, so that no sum waits for it; the engine's next step raises
    rank 0 dies    the others read the end of their input, and leave
"""

import contextlib
import json
import subprocess
import sys
import threading
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._C._distributed_c10d import Store, TCPStore

from services.common.errors import FailedPrecondition
from services.worker.llm.options import EngineOptions
from services.worker.llm.plan import Plan

READY = b"ready\n"
# A sum that takes longer than this has lost a peer that does not even close its sockets.
_SUM_SECONDS = 60
_HOST = "127.0.0.1"


class Members:
    """One rank's way to add up with the others. Made by all ranks at about the same time.

    A process group of its own instead of torch's global one: a process may hold several engines.
    """

    def __init__(self, store: Store, rank: int, ranks: int, device: torch.device) -> None:
        self._group: Any = _nccl(store, rank, ranks) if device.type == "cuda" else _gloo(store, rank, ranks)

    def add_up(self, part: Tensor) -> Tensor:
        """The sum of all ranks' parts, in place. Raises RuntimeError when a peer is gone."""
        part = part.contiguous()
        self._group.allreduce([part]).wait()
        return part


def _gloo(store: Store, rank: int, ranks: int) -> Any:
    """Over the loopback device: a host's name may lead anywhere."""
    kind: Any = torch.distributed.ProcessGroupGloo  # whose options the stubs leave out
    options = kind._Options()
    options._devices = [kind.create_device(hostname=_HOST)]
    options._timeout = timedelta(seconds=_SUM_SECONDS)
    return kind(store, rank, ranks, options)


def _nccl(store: Store, rank: int, ranks: int) -> Any:
    kind: Any = torch.distributed.ProcessGroupNCCL
    return kind(store, rank, ranks, timedelta(seconds=_SUM_SECONDS))


class Group:
    """Rank 0's hold on the other ranks.

    Args:
        folder, options: what every rank loads. They begin at once; `join` waits for them.
    """

    def __init__(self, folder: Path, options: EngineOptions) -> None:
        ranks = options.tensor_parallel_size
        self._store = TCPStore(_HOST, 0, ranks, is_master=True, wait_for_workers=False)
        self._closing = False
        self._processes = [_start(folder, options, rank, self._store.port) for rank in range(1, ranks)]
        self._watchers = [threading.Thread(target=self._watch, args=(p,), daemon=True) for p in self._processes]
        for watcher in self._watchers:
            watcher.start()

    def join(self, device: torch.device) -> Members:
        """Rank 0's place among them, once all have loaded.

        Raises:
            FailedPrecondition: a rank did not come up; it has said why on standard error.
        """
        ranks = self.ranks
        for rank, process in enumerate(self._processes, 1):
            assert process.stdout is not None
            if process.stdout.readline() != READY:
                raise FailedPrecondition(f"rank {rank} of {ranks} did not load the model; see what it logged")
        return Members(self._store, 0, ranks, device)

    def send(self, message: bytes) -> None:
        """To every other rank. Raises OSError when one is gone."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(len(message).to_bytes(8, "little") + message)
            process.stdin.flush()

    @property
    def ranks(self) -> int:
        """How many there are, rank 0 included."""
        return len(self._processes) + 1

    @property
    def pids(self) -> list[int]:
        """Process ids of ranks 1, 2, …"""
        return [process.pid for process in self._processes]

    def close(self) -> None:
        """Ends the other ranks and waits for them."""
        self._closing = True
        for process in self._processes:
            process.kill()  # between steps they hold nothing but memory
            process.wait()
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                with contextlib.suppress(BrokenPipeError):  # it left with something still to be read
                    pipe.close()

    def _watch(self, process: subprocess.Popen[bytes]) -> None:
        """On a thread: a rank that ends by itself takes the others along."""
        process.wait()
        if not self._closing:
            for other in self._processes:
                other.kill()


def _start(folder: Path, options: EngineOptions, rank: int, port: int) -> subprocess.Popen[bytes]:
    arguments = json.dumps({"folder": str(folder), "options": asdict(options), "rank": rank, "port": port})
    return subprocess.Popen(
        [sys.executable, "-m", "services.worker.llm.rank", arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for the first rank, which ends the others
    )


def encode(plan: Plan) -> bytes:
    """All of a plan that the other ranks need: where tokens belong, not whose they are."""
    parts = (plan.rows, plan.starts, plan.counts, plan.token_ids, plan.sampling)
    tables = (plan.table_rows, plan.table_columns, plan.table_blocks)
    lengths = [len(part) for part in (*parts, *tables)]
    return np.array([*lengths, *(n for part in (*parts, *tables) for n in part)], np.int64).tobytes()


def decode(message: bytes) -> Plan:
    """The way back; the plan has no sequences."""
    numbers = np.frombuffer(message, np.int64)
    names = ("rows", "starts", "counts", "token_ids", "sampling", "table_rows", "table_columns", "table_blocks")
    ends = np.cumsum(numbers[: len(names)]) + len(names)
    parts = np.split(numbers, ends)[:-1]
    parts[0] = parts[0][len(names) :]
    return Plan(**{name: part.tolist() for name, part in zip(names, parts, strict=True)})
