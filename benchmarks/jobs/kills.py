"""A job whose every process is killed while it runs: each request has one result in the end, the right one.

    python -m benchmarks.jobs.kills [--requests 10000] [--rabbitmq]

A stack of two gateways and two workers on the embedded broker and a folder, or on RabbitMQ and S3 (`rclone serve s3`).
One after the other, `kill -9` ends a worker, a gateway, the registry, the job service and the broker; then all of them
at the same moment. Prints what was killed when, and fails unless every request has exactly one result.
"""

import argparse
import json
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

from benchmarks.jobs.stacks import Running, running, say
from headrace.client.errors import UnavailableError
from headrace.client.jobs import ENDED, JobsClient
from headrace.v1 import jobs_pb2 as pb
from tests.support.stack import wait_until

VICTIMS = ("worker-1", "gateway", "registry", "jobs", "broker", "everything")
WIDTH = 16


def requests(count: int) -> Iterator[bytes]:
    """Lines whose answers are told apart."""
    for number in range(count):
        tensor = {"name": "x", "datatype": "FP32", "shape": [1, WIDTH], "data": [float(number)] * WIDTH}
        yield json.dumps({"id": f"request-{number}", "inputs": [tensor]}).encode() + b"\n"


def kill(stack: Running, victim: str) -> None:
    """Returns when what was killed is up again."""
    if victim == "everything":
        before = {name: stack.up.pid(name) for name in stack.up.processes()}
        for pid in before.values():
            os.kill(pid, signal.SIGKILL)
        if stack.restart_broker is not None:
            stack.restart_broker()
        wait_until(lambda: all(stack.up.pid(name) != pid for name, pid in before.items()), "all to be back", 120)
    elif victim == "broker" and stack.restart_broker is not None:
        stack.restart_broker()
    else:
        stack.up.signal(victim, signal.SIGKILL)


def state(client: JobsClient, job: str) -> pb.Job:
    """The job, once its service is there."""
    while True:
        try:
            return client.get(job)
        except UnavailableError:
            client.wait()


def until(client: JobsClient, job: str, reached: Callable[[pb.Job], bool], seconds: float = 600.0) -> pb.Job:
    """The job, once something holds for it."""
    wait_until(lambda: reached(state(client, job)), "the job to get on", seconds)
    return state(client, job)


def completed(least: int) -> Callable[[pb.Job], bool]:
    """So many of its requests have a result."""
    return lambda job: job.completed >= least


def survive(stack: Running, client: JobsClient, count: int) -> None:
    """Submits, kills, counts. Raises AssertionError."""
    began = time.monotonic()
    job = client.submit(requests(count), endpoint="/v2/models/add_one/infer").id
    say(f"{count} requests submitted in {time.monotonic() - began:.1f} s")
    began = time.monotonic()
    for number, victim in enumerate(VICTIMS, 1):
        at_least = count * number // (len(VICTIMS) + 2)
        seen = until(client, job, completed(at_least))
        assert seen.state not in ENDED, "the job was done before everybody had been killed; give it more requests"
        say(f"  at {time.monotonic() - began:5.1f} s, {seen.completed:6} done: kill -9 of {victim}")
        kill(stack, victim)
    ended = until(client, job, lambda now: now.state in ENDED)
    say(f"  at {time.monotonic() - began:5.1f} s: {ended.completed} answered, {ended.failed} failed of {ended.total}")
    check(client, job, count)


def check(client: JobsClient, job: str, count: int) -> None:
    """One result for each request, in order, with its own answer."""
    results = [json.loads(line) for line in b"".join(client.results(job)).splitlines()]
    ids = [result["custom_id"] for result in results]
    assert len(ids) == len(set(ids)) == count, f"{len(ids)} results of {len(set(ids))} requests; expected {count}"
    assert ids == [f"request-{number}" for number in range(count)], "results are not in the order of the requests"
    for number, result in enumerate(results):
        (output,) = result["response"]["body"]["outputs"]
        assert output["data"] == [float(number) + 1] * WIDTH, f"{ids[number]} got {output['data'][:1]}"
    say(f"{len(ids)} results, each request once, each answer right")


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--rabbitmq", action="store_true", help="on RabbitMQ and S3")
    options = parser.parse_args()
    with ExitStack() as parts:
        folder = Path(parts.enter_context(tempfile.TemporaryDirectory(prefix="headrace-jobs-")))
        stack = parts.enter_context(running(folder, rabbitmq=options.rabbitmq))
        survive(stack, parts.enter_context(JobsClient(stack.up.address("jobs"))), options.requests)


if __name__ == "__main__":
    main()
