"""Who is measured: each subject has a name, the models it serves, and a way to start it."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import grpc

from benchmarks import others
from benchmarks.headrace_stack import counted_requests, headrace, why_no_rabbitmq
from benchmarks.load import METHOD
from benchmarks.processes import descendants
from benchmarks.workloads import MLP, TRIVIAL, Workload
from tests.support.collector import Received

ECHO, EMBEDDED, RABBITMQ = "echo", "embedded", "rabbitmq"
MLSERVER, PYTRITON, TRITON = "mlserver", "pytriton", "triton"
NAMES = (ECHO, EMBEDDED, RABBITMQ, MLSERVER, PYTRITON, TRITON)
START_SECONDS = 60.0


class SkippedError(Exception):
    """A subject cannot run here; the message says why."""


@dataclass(frozen=True, slots=True)
class Started:
    """A subject that serves.

    Attributes:
        processes: all that it started.
        telemetry: tells, after the run, what was recorded of it; None for others' servers.
    """

    name: str
    address: str
    models: frozenset[str]
    processes: frozenset[int]
    telemetry: Callable[[], str] | None = None


@contextmanager
def started(name: str, folder: Path, workloads: Sequence[Workload], collector: Received) -> Iterator[Started]:
    """Starts a subject and has it answer each workload once, correctly (the echo server: with the request).

    Raises:
        SkippedError: it cannot run here.
        AssertionError: it answers wrong.
    """
    before = descendants(os.getpid())
    if name in (EMBEDDED, RABBITMQ):
        if name == RABBITMQ and (why := why_no_rabbitmq()):
            raise SkippedError(why)
        with headrace(folder, workloads, collector, rabbitmq=name == RABBITMQ) as up:
            subject = Started(
                name,
                up.address("gateway"),
                frozenset((TRIVIAL, MLP)),
                frozenset(descendants(os.getpid()) - before),
                lambda: f"{name}: {counted_requests(up)} requests in the gateway's metrics",
            )
            _probe(subject, workloads)
            yield subject
        return
    with _other(name, folder, workloads) as address:
        subject = Started(name, address, frozenset((TRIVIAL,) if name == ECHO else (TRIVIAL, MLP)), frozenset())
        _probe(subject, workloads)
        # Only now: some start their workers late.
        yield replace(subject, processes=frozenset(descendants(os.getpid()) - before))


def _other(name: str, folder: Path, workloads: Sequence[Workload]) -> AbstractContextManager[str]:
    if name != ECHO and (why := others.why_not(TRITON if name == PYTRITON else name)):
        raise SkippedError(why)
    start = {ECHO: others.echo, MLSERVER: others.mlserver, PYTRITON: others.pytriton, TRITON: others.triton}[name]
    return partial(start, folder, workloads)()


def _probe(subject: Started, workloads: Sequence[Workload]) -> None:
    """Waits for the first answers and checks them."""
    deadline = time.monotonic() + START_SECONDS
    with grpc.insecure_channel(subject.address) as channel:
        infer: Any = channel.unary_unary(METHOD)
        for workload in workloads:
            if workload.name not in subject.models:
                continue
            while True:
                try:
                    answer: bytes = infer(workload.request, timeout=10)
                    break
                except grpc.RpcError as error:
                    if time.monotonic() > deadline:
                        raise SkippedError(f"it did not serve within {START_SECONDS:.0f} s: {error}") from error
                    time.sleep(0.2)  # other servers have no event that tells when they serve
            if subject.name == ECHO:
                assert answer == workload.request
            else:
                workload.check(answer)
