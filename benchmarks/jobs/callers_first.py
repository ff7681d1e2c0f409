"""What a job costs callers: their latency alone, beside a job, and beside the same work without its low priority.

    python -m benchmarks.jobs.callers_first [--rate 50] [--seconds 20]

The model is `runtime: identity`: 8 ms a batch and 1.5 ms for each of up to 8 requests, so that one worker does 400
requests/s whatever else the machine does. Callers ask at a steady rate, at random moments.
"""

import argparse
import asyncio
import json
import random
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from grpc import aio

from benchmarks.jobs.stacks import Running, running, say
from benchmarks.multi_model.callers import percentile
from headrace.client.jobs import ENDED, JobsClient
from headrace.client.tensors import make_request
from headrace.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from tests.support.stack import wait_until

if TYPE_CHECKING:
    from headrace.inference.grpc_service_pb2_grpc import GRPCInferenceServiceAsyncStub

# As many as the job service has under way.
UNDER_WAY = 128
REQUEST = make_request("toy", {"x": np.ones((1, 1), np.float32)}, "", "")
Beside = Callable[[Running], AbstractAsyncContextManager[Callable[[], int]]]


@asynccontextmanager
async def nothing(stack: Running) -> AsyncIterator[Callable[[], int]]:
    """Callers are alone."""
    yield lambda: 0


@asynccontextmanager
async def a_job(stack: Running) -> AsyncIterator[Callable[[], int]]:
    """A job that outlasts the block."""
    with JobsClient(stack.up.address("jobs")) as client:
        job = await asyncio.to_thread(lambda: client.submit(_lines(60_000), endpoint="/v2/models/toy/infer").id)
        await asyncio.to_thread(wait_until, lambda: client.get(job).completed > 0, "the job to begin")
        yield lambda: client.get(job).completed
        client.cancel(job)
        await asyncio.to_thread(wait_until, lambda: client.get(job).state in ENDED, "the job to end")


def load(priority: str) -> Beside:
    """The same number of requests under way, by gRPC, with a priority."""

    @asynccontextmanager
    async def loaded(stack: Running) -> AsyncIterator[Callable[[], int]]:
        done = 0

        async def keep_asking(stub: "GRPCInferenceServiceAsyncStub") -> None:
            nonlocal done
            while True:
                await stub.ModelInfer(REQUEST, timeout=300, metadata=(("headrace-priority", priority),))
                done += 1

        async with aio.insecure_channel(stack.up.address("gateway")) as channel, asyncio.TaskGroup() as group:
            stub: GRPCInferenceServiceAsyncStub = GRPCInferenceServiceStub(channel)
            asking = [group.create_task(keep_asking(stub)) for _ in range(UNDER_WAY)]
            await asyncio.sleep(1)  # until they fill the model: what is measured is the steady state
            yield lambda: done
            for task in asking:
                task.cancel()

    return loaded


async def measure(stack: Running, name: str, beside: Beside, rate: float, seconds: float) -> None:
    """Prints a line of the table."""
    latencies: list[float] = []

    async def ask(stub: "GRPCInferenceServiceAsyncStub") -> None:
        began = time.perf_counter()
        await stub.ModelInfer(REQUEST, timeout=60)
        latencies.append(time.perf_counter() - began)

    async with beside(stack) as done, aio.insecure_channel(stack.up.address("gateway")) as channel:
        stub: GRPCInferenceServiceAsyncStub = GRPCInferenceServiceStub(channel)
        before = await asyncio.to_thread(done)
        took = await _at_random(lambda: ask(stub), rate, seconds)
        other = (await asyncio.to_thread(done) - before) / took
    p50, p99 = (percentile(latencies, share) for share in (0.5, 0.99))
    say(f"| {name} | {len(latencies)} | {p50:.1f} | {p99:.1f} | {max(latencies) * 1000:.1f} | {other:.0f} |")


async def _at_random(ask: Callable[[], Awaitable[None]], rate: float, seconds: float) -> float:
    """Poisson arrivals; returns the seconds that it took."""
    gaps, loop = random.Random(0), asyncio.get_running_loop()
    began = at = loop.time()
    async with asyncio.TaskGroup() as group:
        while at < began + seconds:
            await asyncio.sleep(max(0.0, at - loop.time()))  # the arrivals' own schedule
            group.create_task(_run(ask))
            at += gaps.expovariate(rate)
    return loop.time() - began


async def _run(ask: Callable[[], Awaitable[None]]) -> None:
    await ask()


def _lines(count: int) -> Iterator[bytes]:
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [1.0]}
    line = json.dumps({"inputs": [tensor]}).encode() + b"\n"
    for _ in range(count):
        yield line


async def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=50.0, help="callers' requests a second")
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args()
    with ExitStack() as parts:
        folder = Path(parts.enter_context(tempfile.TemporaryDirectory(prefix="headrace-jobs-")))
        stack = parts.enter_context(running(folder, workers=1, gateways=1))
        say("| beside the callers | callers' requests | p50 ms | p99 ms | worst ms | others' requests/s |")
        say("|---|---|---|---|---|---|")
        cases: dict[str, Beside] = {
            "nothing": nothing,
            "a job": a_job,
            f"{UNDER_WAY} requests, background, by gRPC": load("background"),
            f"{UNDER_WAY} requests, callers' priority, by gRPC": load("interactive"),
        }
        for name, beside in cases.items():
            await measure(stack, name, beside, options.rate, options.seconds)


if __name__ == "__main__":
    asyncio.run(main())
