"""`headrace up --workers 0..3`: traffic comes and goes, and workers with it."""

import asyncio
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from typer.testing import CliRunner

from headrace import AsyncClient, Client
from headrace.cli.main import app
from headrace.client.jobs import JobsClient
from headrace.client.registry import RegistryClient
from headrace.keda.externalscaler_pb2 import GetMetricsRequest, ScaledObjectRef
from headrace.keda.externalscaler_pb2_grpc import ExternalScalerStub
from tests.support.identity import ROW, identity
from tests.support.stack import RunningStack, running_stack, wait_until

SHORT = {
    "HEADRACE_SCALE_DOWN_SECONDS": "3",
    "HEADRACE_SCALE_IDLE_SECONDS": "3",
    "HEADRACE_SCALE_STABLE_SECONDS": "5",
    "HEADRACE_SCALE_PANIC_SECONDS": "2",
    "HEADRACE_SCALE_BURST_HALF_LIFE": "3",
}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    folder = tmp_path_factory.mktemp("autoscaling")
    with running_stack(folder / "data", workers="0..3", environment=SHORT) as up:
        with RegistryClient(up.address("registry")) as registry, Client(up.address("gateway")) as client:
            registry.push("toy", identity(folder / "toy", batch_ms=20, request_ms=20))
            wait_until(lambda: "toy" in {model.name for model in client.status().models}, "the gateway to know it")
        yield up


def workers(stack: RunningStack) -> list[str]:
    return [name for name in stack.processes() if name.startswith("worker")]


def scale(stack: RunningStack, *options: str, expect: int = 0) -> Any:
    """`headrace scale … --json`."""
    command = ["scale", *options, "--json", "--autoscaler", stack.address("autoscaler")]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == expect, (result.output, result.exception)
    return json.loads(result.stdout) if expect == 0 else result.stderr


async def burst(stack: RunningStack, rate: float, seconds: float) -> None:
    """Sends at this rate; raises if one request fails."""
    async with AsyncClient(stack.address("gateway")) as client, asyncio.TaskGroup() as group:
        loop = asyncio.get_running_loop()
        began = loop.time()
        for number in range(int(rate * seconds)):
            await asyncio.sleep(max(0.0, began + number / rate - loop.time()))
            group.create_task(client.infer("toy", ROW, timeout=60))


def test_workers_come_out_of_nothing_grow_with_a_burst_and_leave_without_losing_a_request(stack: RunningStack) -> None:
    wait_until(lambda: not workers(stack), "an idle stack to have no workers")
    with Client(stack.address("gateway")) as client:
        client.infer("toy", ROW, timeout=60)  # wakes the first worker
        assert len(workers(stack)) == 1
        before = client.status().models[0].answered
        # 40 requests/s of 22.5 ms each, in full batches: more than one worker at 70 % does.
        asyncio.run(burst(stack, 40, 20))
        assert len(workers(stack)) >= 2
        wait_until(lambda: not workers(stack), "the workers to leave", 60)
        (model,) = client.status().models
        assert (model.answered - before, model.failed, model.in_flight) == (800, 0, 0)
    assert "Traceback" not in stack.log("autoscaler")
    with urllib.request.urlopen(f"http://{stack.http()}/console/live") as feed:
        told = json.loads(feed.readline().removeprefix(b"data: "))["autoscaler"]
    assert told["address"] == stack.address("autoscaler")
    changes = told["state"]["changes"]
    assert (changes[0]["previous"], changes[0]["target"], changes[-1]["target"]) == (0, 1, 0)
    assert all(change["previous"] != change["target"] and change["reason"] for change in changes)


def test_a_job_wakes_a_worker_from_zero(stack: RunningStack) -> None:
    wait_until(lambda: not workers(stack), "an idle stack to have no workers", 60)
    line = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]}
    with JobsClient(stack.address("jobs")) as jobs:
        job = jobs.submit([json.dumps(line).encode() + b"\n"] * 40, endpoint="/v2/models/toy/infer")
        *_, last = jobs.watch(job.id)
    assert (last.total, last.completed) == (40, 40)


def test_a_job_is_seen_whole_though_gateways_have_only_a_few_of_its_requests(stack: RunningStack) -> None:
    """4,000 requests of 20 ms each, of which gateways never have more than 128."""
    line = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]}
    with JobsClient(stack.address("jobs")) as jobs:
        job = jobs.submit([json.dumps(line).encode() + b"\n"] * 4000, endpoint="/v2/models/toy/infer")

        def seen() -> bool:
            return any(queue["name"] == "toy" and int(queue["jobs"]) > 1000 for queue in scale(stack)["queues"])

        wait_until(seen, "the autoscaler to see what is still to be sent", 60)
        jobs.cancel(job.id)
        *_, last = jobs.watch(job.id)
        assert last.completed + last.failed == 4000

        def forgotten() -> bool:
            return all(int(queue["jobs"]) == 0 for queue in scale(stack)["queues"])

        wait_until(forgotten, "a cancelled job to be no demand", 30)


def test_the_operator_sees_what_is_decided_and_sets_limits_and_pauses(stack: RunningStack) -> None:
    wait_until(lambda: not workers(stack), "an idle stack to have no workers", 60)
    state = scale(stack)
    assert (state["active"], state["min_workers"], state["max_workers"]) == (True, 0, 3)
    assert (state["orchestrator"], state["mode"]) == ("processes", "drain_time")
    scale(stack, "--pause")
    assert scale(stack, "--min", "1")["paused"] is True
    wait_until(lambda: scale(stack)["decision"]["target"] == 1, "the limit to be obeyed")
    assert workers(stack) == []
    scale(stack, "--resume")
    wait_until(lambda: bool(workers(stack)), "the fewest workers to be there")
    wait_until(lambda: [worker["phase"] for worker in scale(stack)["workers"]] == ["WORKER_PHASE_READY"], "it to start")
    (queue,) = scale(stack)["queues"]
    assert (queue["name"], queue["backlog"]) == ("toy", 0)
    assert "--min 9 is over --max 3" in scale(stack, "--min", "9", expect=2)
    shown = CliRunner().invoke(
        app,
        ["status", "--once", "--address", stack.address("gateway"), "--autoscaler", stack.address("autoscaler")],
        env={"COLUMNS": "200"},
    )
    assert "autoscaler active: 1 of 1..3 workers (processes, drain_time)" in shown.stdout
    scale(stack, "--min", "0")
    wait_until(lambda: not workers(stack), "the last worker to leave", 60)


def test_keda_gets_the_decisions_as_they_are(stack: RunningStack) -> None:
    wait_until(lambda: not workers(stack), "an idle stack to have no workers", 60)
    target = ScaledObjectRef(name="workers", namespace="models")
    with grpc.insecure_channel(stack.address("autoscaler")) as channel, Client(stack.address("gateway")) as client:
        keda = ExternalScalerStub(channel)
        assert keda.IsActive(target).result is False
        (spec,) = keda.GetMetricSpec(target).metric_specs
        assert (spec.target_size, spec.target_size_float) == (1, 1.0)
        asked = GetMetricsRequest(scaled_object_ref=target, metric_name=spec.metric_name)
        assert keda.GetMetrics(asked).metric_values[0].metric_value == 0
        stream = keda.StreamIsActive(target)
        assert next(stream).result is False
        client.infer("toy", ROW, timeout=60)
        assert next(stream).result is True
        assert keda.GetMetrics(asked).metric_values[0].metric_value >= 1
        assert keda.IsActive(target).result is True
        stream.cancel()
        with pytest.raises(grpc.RpcError, match="headrace-workers"):
            keda.GetMetrics(GetMetricsRequest(scaled_object_ref=target, metric_name="other"))


@contextmanager
def standby(stack: RunningStack, data: Path, folder: Path) -> Iterator[str]:
    """A second autoscaler over the same store; yields its address."""
    settings = {
        "REGISTRY": stack.address("registry"),
        "BROKER": stack.setting("autoscaler", "BROKER"),
        "STORE": (data / "store").resolve().as_uri(),
        "LISTEN": "127.0.0.1:0",
        "MAX_WORKERS": "3",
    }
    environment = {**os.environ, **{f"HEADRACE_{key}": value for key, value in settings.items()}}
    with (folder / "standby.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "services.autoscaler"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    assert process.stdout is not None
    try:
        yield process.stdout.readline().split()[2]
    finally:
        process.terminate()
        process.wait(20)
        process.stdout.close()


def test_a_standby_takes_over_within_fifteen_seconds_and_keeps_the_limits(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with running_stack(data, workers="0..3") as up:
        address = up.address("autoscaler")

        def state(of: str) -> Any:
            said = CliRunner().invoke(app, ["scale", "--json", "--autoscaler", of])
            return json.loads(said.stdout) if said.exit_code == 0 else {}

        wait_until(lambda: bool(state(address).get("active")), "the first one to be active")
        scale(up, "--max", "2")
        with standby(up, data, tmp_path) as second:
            wait_until(lambda: state(second).get("active_address") == address, "the second one to know who is active")
            refused = CliRunner().invoke(app, ["scale", "--max", "1", "--autoscaler", second])
            assert (refused.exit_code, address in refused.stderr) == (1, True)
            began = time.monotonic()
            # It does not come back for as long as it is stopped; a killed one the supervisor would start again at once.
            os.kill(up.pid("autoscaler"), 19)
            wait_until(lambda: bool(state(second).get("active")), "the second one to take over")
            took = time.monotonic() - began
            os.kill(up.pid("autoscaler"), 18)
            assert took <= 15
            assert state(second)["max_workers"] == 2
            wait_until(lambda: state(address).get("active_address") == second, "the first one to see it")
