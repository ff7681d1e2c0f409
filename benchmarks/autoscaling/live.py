"""A real stack, `headrace up --workers 0..6`: from idle to 200 requests/s and back.

    python -m benchmarks.autoscaling.live [RATE [SECONDS]]

The model is `runtime: identity`: 40 ms a batch and 10 ms for each of up to 8 requests, so that a worker can do 67
requests/s whatever else the machine does; the stack, its clients and this program share its cores. The model's queue
takes 5,000 requests: until workers have started, a burst out of nothing waits there, or is refused. Prints a table and
draws a plot beside this file.
"""

import asyncio
import contextlib
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
from matplotlib.figure import Figure

from headrace import AsyncClient, Client
from headrace.client.errors import HeadraceError
from headrace.client.registry import RegistryClient
from headrace.v1.autoscaler_pb2 import (
    WORKER_PHASE_LEAVING,
    WORKER_PHASE_READY,
    GetScalingRequest,
)
from headrace.v1.autoscaler_pb2_grpc import AutoscalerServiceStub
from tests.support.identity import ROW, identity
from tests.support.stack import RunningStack, running_stack, wait_until

if TYPE_CHECKING:
    from headrace.v1.autoscaler_pb2_grpc import AutoscalerServiceAsyncStub

IDLE_SECONDS, STEP_SECONDS = 5.0, 5.0
SETTINGS = {"HEADRACE_SCALE_DOWN_SECONDS": "10", "HEADRACE_SCALE_IDLE_SECONDS": "10"}


@dataclass(slots=True)
class Run:
    """What happened. Times are seconds from the start.

    Attributes:
        answers: (sent at, latency) of each request that was answered.
        samples: (time, target, ready, workers that are there, unanswered).
    """

    answers: list[tuple[float, float]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    samples: list[tuple[float, int, int, int, int]] = field(default_factory=list)
    wake_seconds: float = 0.0


async def measure(up: RunningStack, rate: float, seconds: float, run: Run) -> None:
    """Idle, the burst at once, idle until nobody is left."""
    began = time.monotonic()
    async with AsyncClient(up.address("gateway")) as client, grpc.aio.insecure_channel(up.address("autoscaler")) as to:
        watching = asyncio.create_task(_watch(AutoscalerServiceStub(to), began, run))
        await asyncio.sleep(IDLE_SECONDS)  # the load's own shape: nobody calls
        first = time.monotonic()

        async def one() -> None:
            sent = time.monotonic()
            try:
                await client.infer("toy", ROW, timeout=60)
            except HeadraceError as error:
                run.errors.append(f"{error.code} {error}")
            else:
                run.answers.append((sent - began, time.monotonic() - sent))
                run.wake_seconds = run.wake_seconds or time.monotonic() - first

        async with asyncio.TaskGroup() as group:
            for number in range(int(rate * seconds)):
                await asyncio.sleep(max(0.0, first + number / rate - time.monotonic()))  # its pace
                group.create_task(one())
        async with asyncio.timeout(120):
            while run.samples[-1][3]:  # noqa: ASYNC110  # the table is what is waited for
                await asyncio.sleep(0.2)  # the table is written by the samples of a task of its own
        await asyncio.sleep(2.0)  # the plot shows that nobody comes back
        watching.cancel()


async def _watch(stub: "AutoscalerServiceAsyncStub", began: float, run: Run) -> None:
    while True:
        with contextlib.suppress(grpc.RpcError):
            state = await stub.GetScaling(GetScalingRequest(), timeout=5.0)
            phases = [worker.phase for worker in state.workers]
            ready = phases.count(WORKER_PHASE_READY)
            staying = len(phases) - phases.count(WORKER_PHASE_LEAVING)
            backlog = sum(queue.backlog for queue in state.queues)
            run.samples.append((time.monotonic() - began, state.decision.target, ready, staying, backlog))
        await asyncio.sleep(0.25)  # a sample of the plot


def table(run: Run) -> str:
    """Workers, backlog and latency, every few seconds."""
    lines = ["| second | sent/s | target | ready | unanswered | p50 s | p99 s |", "|---|---|---|---|---|---|---|"]
    end = run.samples[-1][0]
    for index in range(int(end // STEP_SECONDS) + 1):
        begin = index * STEP_SECONDS
        within = [sample for sample in run.samples if begin <= sample[0] < begin + STEP_SECONDS]
        latencies = sorted(latency for at, latency in run.answers if begin <= at < begin + STEP_SECONDS)
        if not within:
            continue
        _, target, ready, _, _ = within[-1]
        unanswered = max(sample[4] for sample in within)
        p50, p99 = (
            f"{latencies[min(len(latencies) - 1, int(len(latencies) * share))]:.2f}" if latencies else "–"
            for share in (0.5, 0.99)
        )
        span, sent = f"{begin:.0f}–{begin + STEP_SECONDS:.0f}", len(latencies) / STEP_SECONDS
        lines.append(f"| {span} | {sent:.0f} | {target} | {ready} | {unanswered} | {p50} | {p99} |")
    return "\n".join(lines)


def draw(path: Path, run: Run, title: str) -> None:
    """Workers, backlog and latency over time."""
    figure = Figure(figsize=(9, 7), layout="constrained")
    workers, backlog, latency = figure.subplots(3, 1, sharex=True)
    times = [sample[0] for sample in run.samples]
    for column, label in ((1, "target"), (2, "ready"), (3, "there")):
        workers.step(times, [sample[column] for sample in run.samples], where="post", label=label)
    workers.set_ylabel("workers")
    workers.legend(fontsize=8)
    backlog.plot(times, [sample[4] for sample in run.samples], color="tab:orange")
    backlog.set_ylabel("unanswered")
    points = sorted(run.answers)
    latency.plot([at for at, _ in points], [seconds for _, seconds in points], ".", ms=2, color="tab:purple")
    latency.set_ylabel("latency, s")
    latency.set_xlabel("seconds")
    figure.suptitle(title, fontsize=11)
    figure.savefig(path, dpi=90, metadata={"Software": ""})


def main(rate: float = 200.0, seconds: float = 40.0) -> None:
    """One run."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with running_stack(folder / "data", workers="0..6", environment=SETTINGS) as up:
            with RegistryClient(up.address("registry")) as registry, Client(up.address("gateway")) as client:
                registry.push("toy", identity(folder / "toy", batch_ms=40, request_ms=10, max_requests=5000))
                wait_until(lambda: "toy" in {model.name for model in client.status().models}, "the gateway to know it")
            run = Run()
            asyncio.run(measure(up, rate, seconds, run))
    latencies = sorted(latency for _, latency in run.answers)
    print(table(run))
    print(
        f"\n{len(run.answers) + len(run.errors):,} requests at {rate:.0f}/s for {seconds:.0f} s:"
        f" {len(run.errors)} failed;"
        f" first reply {run.wake_seconds:.2f} s after the first request, out of no worker at all;"
        f" p50 {latencies[len(latencies) // 2]:.2f} s, p99 {latencies[len(latencies) * 99 // 100]:.2f} s"
    )
    for error in run.errors[:5]:
        print(error)
    draw(
        Path(__file__).with_name("live.png"),
        run,
        f"headrace up --workers 0..6: {rate:.0f} requests/s for {seconds:.0f} s",
    )


if __name__ == "__main__":
    main(*map(float, sys.argv[1:]))
