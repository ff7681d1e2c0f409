"""Jobs on a real stack, all of whose processes are killed while one runs."""

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from grpc import aio
from typer.testing import CliRunner

from headrace import Client
from headrace.cli.main import app
from headrace.client.errors import FailedPreconditionError, InvalidArgumentError, NotFoundError
from headrace.client.jobs import ENDED, JobsClient
from headrace.client.registry import RegistryClient
from headrace.client.tensors import make_request
from headrace.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from headrace.v1 import jobs_pb2 as pb
from tests.e2e.conftest import ready
from tests.support import models
from tests.support.identity import identity
from tests.support.stack import RunningStack, running_stack, wait_until

if TYPE_CHECKING:
    from headrace.inference.grpc_service_pb2_grpc import GRPCInferenceServiceAsyncStub

TOY = "/v2/models/toy/infer"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    folder = tmp_path_factory.mktemp("jobs")
    with running_stack(folder / "data", environment={"HEADRACE_JOBS_IN_FLIGHT": "64"}) as up:
        with RegistryClient(up.address("registry")) as registry, Client(up.address("gateway")) as client:
            registry.push("toy", identity(folder / "toy", batch_ms=20, request_ms=5))
            registry.push("add_one", models.add_one(folder / "add_one.onnx"))
            for name in ("toy", "add_one"):
                wait_until(lambda name=name: ready(client, name), name)  # type: ignore[misc]
        yield up


@pytest.fixture
def jobs(stack: RunningStack) -> Iterator[JobsClient]:
    with JobsClient(stack.address("jobs")) as client:
        yield client


def body(number: int) -> dict[str, Any]:
    """What POST /v2/models/toy/infer takes."""
    return {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [float(number)]}]}


def lines(count: int) -> list[bytes]:
    return [json.dumps({"id": f"number-{number}", **body(number)}).encode() + b"\n" for number in range(count)]


def results(jobs: JobsClient, job: str, kind: pb.ResultKind.ValueType = pb.RESULT_KIND_UNSPECIFIED) -> list[Any]:
    return [json.loads(line) for line in b"".join(jobs.results(job, kind)).splitlines()]


def kill_all(stack: RunningStack) -> None:
    """kill -9 of every process at the same moment; returns when the supervisor has them all up again."""
    before = {name: stack.pid(name) for name in stack.processes()}
    for pid in before.values():
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: all(stack.pid(name) != pid for name, pid in before.items()), "all to be started again", 60)


def ended(jobs: JobsClient, job: str, seconds: float = 100.0) -> pb.Job:
    wait_until(lambda: jobs.get(job).state in ENDED, "the job to end", seconds)
    return jobs.get(job)


def progressed(jobs: JobsClient, job: str, count: int) -> None:
    wait_until(lambda: jobs.get(job).completed >= count, f"{count} results", 60)


def test_every_request_has_one_result_though_every_process_is_killed(stack: RunningStack, jobs: JobsClient) -> None:
    job = jobs.submit(lines(600), endpoint=TOY, metadata={"for": "the test"}).id
    progressed(jobs, job, 64)
    kill_all(stack)
    jobs.wait()
    last = ended(jobs, job)
    assert (last.state, last.total, last.completed, last.failed) == (pb.JOB_STATE_COMPLETED, 600, 600, 0)
    found = results(jobs, job)
    assert [result["custom_id"] for result in found] == [f"number-{number}" for number in range(600)]
    assert len({result["id"] for result in found}) == 600
    answers = [result["response"]["body"]["outputs"][0]["data"] for result in found]
    assert answers == [[float(number)] for number in range(600)]
    assert dict(last.metadata) == {"for": "the test"}


def test_bad_jobs_are_refused_with_the_line_and_leave_nothing(jobs: JobsClient) -> None:
    before = jobs.list()
    for wrong, message in (
        ([b""], "no requests"),
        ([*lines(40), b"{nope}\n"], "line 41 is not JSON"),
        ([*lines(2), *lines(1)], "line 3: custom_id 'number-0' is that of line 1"),
    ):
        with pytest.raises(InvalidArgumentError, match=message):
            jobs.submit(wrong, endpoint=TOY)
    with pytest.raises(InvalidArgumentError, match="takes no jobs"):
        jobs.submit(lines(1), endpoint="/v2/health/live")
    with pytest.raises(InvalidArgumentError, match="bodies alone need an endpoint"):
        jobs.submit(lines(1))
    with pytest.raises(NotFoundError, match="no job"):
        jobs.get("job_0")
    assert jobs.list() == before


def test_requests_that_fail_are_told_apart_and_the_others_are_answered(jobs: JobsClient) -> None:
    def line(custom_id: str, model: str, data: dict[str, Any]) -> bytes:
        said = {"custom_id": custom_id, "method": "POST", "url": f"/v2/models/{model}/infer", "body": data}
        return json.dumps(said).encode() + b"\n"

    job = jobs.submit([line("good", "toy", body(1)), line("bad", "add_one", body(1)), line("gone", "nobody", body(1))])
    last = ended(jobs, job.id)
    assert (last.state, last.completed, last.failed) == (pb.JOB_STATE_COMPLETED, 1, 2)
    (good,) = results(jobs, job.id, pb.RESULT_KIND_OUTPUT)
    assert (good["custom_id"], good["response"]["status_code"], good["error"]) == ("good", 200, None)
    bad, gone = results(jobs, job.id, pb.RESULT_KIND_ERRORS)
    assert (bad["response"]["status_code"], gone["response"]["status_code"]) == (400, 404)
    assert "no model 'nobody'" in gone["response"]["body"]["error"]


def test_a_cancelled_job_ends_with_a_word_for_each_request(jobs: JobsClient) -> None:
    job = jobs.submit(lines(600), endpoint=TOY).id
    progressed(jobs, job, 32)
    with pytest.raises(FailedPreconditionError, match="cancel it first"):
        jobs.delete(job)
    jobs.cancel(job)
    last = ended(jobs, job, 10)
    assert last.state == pb.JOB_STATE_CANCELLED
    assert last.completed >= 32
    assert last.completed + last.failed == 600
    assert [result["custom_id"] for result in results(jobs, job)] == [f"number-{number}" for number in range(600)]
    failed = results(jobs, job, pb.RESULT_KIND_ERRORS)
    assert {result["error"]["code"] for result in failed} == {"batch_cancelled"}
    assert jobs.cancel(job) == last
    jobs.delete(job)
    assert job not in [each.id for each in jobs.list()]


def test_a_job_whose_time_is_up_ends(jobs: JobsClient) -> None:
    job = jobs.submit(lines(600), endpoint=TOY, window_seconds=1).id
    last = ended(jobs, job, 10)
    assert (last.state, last.completed + last.failed) == (pb.JOB_STATE_EXPIRED, 600)
    assert results(jobs, job)[-1]["error"]["code"] == "batch_expired"


def test_the_command_line(stack: RunningStack, jobs: JobsClient, tmp_path: Path) -> None:
    file = tmp_path / "requests.jsonl"
    file.write_bytes(b"".join(lines(40)))

    def run(*arguments: str, expect: int = 0) -> str:
        said = CliRunner().invoke(app, ["job", *arguments, "--jobs", stack.address("jobs")], env={"COLUMNS": "200"})
        assert said.exit_code == expect, (said.output, said.exception)
        return said.stdout if expect == 0 else said.stderr

    job = json.loads(run("submit", str(file), "--model", "toy:1", "--json"))["id"]
    assert "40 of 40 done" in run("watch", job)
    assert "completed" in run("show", job)
    assert json.loads(run("list", "--json"))[0]["id"] == job
    assert job in run("list")
    assert len(run("results", job).splitlines()) == 40
    assert run("results", job, "--errors") == ""
    run("delete", job)
    assert "no job" in run("show", job, expect=2)
    assert "give one" in run("submit", str(file), "--model", "toy", "--endpoint", TOY, expect=2)


async def test_callers_go_first_whatever_waits_in_the_background(stack: RunningStack) -> None:
    order: list[str] = []

    async def ask(stub: "GRPCInferenceServiceAsyncStub", priority: str) -> None:
        request = make_request("toy", {"x": np.ones((1, 1), np.float32)}, "", "")
        await stub.ModelInfer(request, timeout=60, metadata=(("headrace-priority", priority),))
        order.append(priority)

    def accepted(count: int) -> bool:
        return in_flight() == count

    def in_flight() -> int:
        with Client(stack.address("gateway")) as client:
            return next(model.in_flight for model in client.status().models if model.name == "toy")

    async with aio.insecure_channel(stack.address("gateway")) as channel, asyncio.TaskGroup() as group:
        stub: GRPCInferenceServiceAsyncStub = GRPCInferenceServiceStub(channel)
        os.kill(stack.pid("worker-1"), signal.SIGSTOP)
        for priority, count in (("background", 120), ("interactive", 136)):
            asked = [group.create_task(ask(stub, priority)) for _ in range(count - in_flight())]
            await asyncio.to_thread(wait_until, partial(accepted, count), "all to be accepted")
        os.kill(stack.pid("worker-1"), signal.SIGCONT)
        await asyncio.gather(*asked)
        # Two batches of eight may have been begun before the worker had read the callers' messages.
        assert order.count("background") <= 24
        assert order.count("interactive") == 16
        with pytest.raises(aio.AioRpcError, match="expected 'interactive' or 'background'"):
            await ask(stub, "whenever")
    assert order.count("background") == 120
