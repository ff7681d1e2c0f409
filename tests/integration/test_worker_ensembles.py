"""Ensembles on real workers: models that are loaded once, held while they run, and followed when an alias moves."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from grpc import aio

from headrace.client.errors import FailedPreconditionError
from headrace.client.registry import RegistryClient
from headrace.inference.grpc_service_pb2 import ModelInferRequest
from headrace.v1.rollout_pb2 import PromoteRequest, RollbackRequest
from headrace.v1.rollout_pb2_grpc import RolloutServiceStub
from headrace.v1.work_pb2 import WorkRequest
from services.common.queues import queue_name
from tests.integration.test_worker_bench import (
    Bench,
    Gateway,
    answered,
    first_value,
    gateway,
    row,
    running_bench,
    until,
    work,
)
from tests.integration.test_worker_memory import DECLARED_MIB, fleet, holds, package, worker
from tests.support import models

if TYPE_CHECKING:
    from headrace.v1.rollout_pb2_grpc import RolloutServiceAsyncStub

CHAIN = """\
runtime: ensemble
steps:
- {model: m1, input_map: {x: between}}
- {model: m0, output_map: {y: between}}
"""


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """Broker and registry with models m0 to m3, each y = x + 1, and `chain`: m0, then m1."""
    async with running_bench(tmp_path) as ready:
        for number in range(4):
            await asyncio.to_thread(ready.push, f"m{number}", package(tmp_path / f"m{number}"))
        await asyncio.to_thread(ready.push, "chain", ensemble(tmp_path / "chain", CHAIN))
        yield ready


@pytest.fixture
async def registry(bench: Bench) -> AsyncIterator[aio.Channel]:
    """A channel to the registry's process."""
    async with aio.insecure_channel(bench.environment["HEADRACE_REGISTRY"]) as channel:
        yield channel


def ensemble(folder: Path, manifest: str) -> Path:
    folder.mkdir()
    (folder / "model.yaml").write_text(manifest)
    return folder


async def ask(bench: Bench, one: Gateway, model: str, value: float = 1) -> float:
    [request_id] = await bench.publish(queue_name(model, 1), one.reply_to, row(value))
    return await first_value(one, request_id)


async def test_steps_run_in_one_worker_in_batches_and_the_receipt_names_them(
    bench: Bench, registry: aio.Channel
) -> None:
    async with gateway() as one:
        await worker(bench, "w1", holds=2, HEADRACE_MODELS="chain")
        await holds(registry, "w1", "chain", "m0", "m1")
        ids = await bench.publish("headrace.chain.1", one.reply_to, *(row(number) for number in range(8)))
        assert [await first_value(one, request_id) for request_id in ids] == [number + 2 for number in range(8)]
        receipt = (await answered(one, ids[0])).receipt
        assert receipt.batch_requests == 8
        assert [(stage.model, stage.version) for stage in receipt.stages] == [("m0", 1), ("m1", 1)]
        assert sum(stage.compute_us for stage in receipt.stages) <= receipt.compute_us
        # Held for the ensemble, not served by themselves.
        said = (await fleet(registry))["w1"]
        assert said.memory_used_bytes == 2 * DECLARED_MIB * 2**20


async def test_a_model_that_is_served_too_is_in_memory_once(bench: Bench, registry: aio.Channel) -> None:
    async with gateway() as one:
        await worker(bench, "w1", holds=4, HEADRACE_MODELS="chain,m0,m3")
        await holds(registry, "w1", "chain", "m0", "m1", "m3")
        values = await asyncio.gather(*(ask(bench, one, name, 5) for name in ("chain", "m0") * 10))
        assert values == [7, 6] * 10
        said = (await fleet(registry))["w1"]
        assert (said.loads, said.memory_used_bytes) == (4, 3 * DECLARED_MIB * 2**20)


async def test_steps_leave_for_what_is_asked_for_and_come_back(bench: Bench, registry: aio.Channel) -> None:
    async with gateway() as one:
        await worker(bench, "w1", holds=2, HEADRACE_MODELS="chain,m2,m3")
        names = ["chain", "m2", "chain", "m3", "m2", "chain"]
        values = [await ask(bench, one, name, at) for at, name in enumerate(names)]
        assert values == [2, 2, 4, 4, 5, 7]
        await holds(registry, "w1", "chain", "m0", "m1")
        said = (await fleet(registry))["w1"]
        assert said.memory_used_bytes <= said.memory_budget_bytes
        # All at once: nobody waits for ever, whoever holds what the other needs.
        busy = await asyncio.gather(*(ask(bench, one, names[at % 6], at) for at in range(36)))
        assert busy == [at + (2 if names[at % 6] == "chain" else 1) for at in range(36)]


async def test_steps_that_do_not_fit_together_say_so(bench: Bench) -> None:
    async with gateway() as one:
        await worker(bench, "w1", holds=1, HEADRACE_MODELS="chain,m0")
        [request_id] = await bench.publish("headrace.chain.1", one.reply_to, row(1))
        error = (await answered(one, request_id)).error
        assert error.code == 9
        assert "steps take 512.0 MiB together, over this worker's memory budget of 256.0 MiB" in error.message
        assert await ask(bench, one, "m0") == 2


@pytest.mark.parametrize("room", [2, 4])
async def test_an_alias_that_moves_is_followed_without_a_failed_request(
    bench: Bench, registry: aio.Channel, room: int
) -> None:
    """With room for the old and the new model, or for one of them only."""
    with RegistryClient(bench.environment["HEADRACE_REGISTRY"]) as client:
        for amount in (10, 100):
            folder = package(bench.folder / f"by{amount}")
            models.add(folder / "model.onnx", amount)
            await asyncio.to_thread(client.push, "step", folder)
        await asyncio.to_thread(client.set_alias, "step", "good", 1)
        manifest = CHAIN.replace("model: m0", "model: step, version: good")
        await asyncio.to_thread(client.push, "follows", ensemble(bench.folder / "follows", manifest))
        async with gateway() as one:
            await worker(bench, "w1", holds=room, HEADRACE_MODELS="follows")
            assert await ask(bench, one, "follows") == 12
            seen: list[float] = []

            async def call() -> None:
                while 102 not in seen:
                    seen.append(await ask(bench, one, "follows"))

            async with asyncio.timeout(30), asyncio.TaskGroup() as callers:
                for _ in range(8):
                    callers.create_task(call())
                await until(lambda: len(seen) > 8)
                await asyncio.to_thread(client.set_alias, "step", "good", 2)
            assert set(seen) == {12, 102}
            # What it no longer needs may go.
            await asyncio.to_thread(client.delete_version, "step", 1)
            await holds(registry, "w1", "follows", "step", "m1")
            assert await ask(bench, one, "follows") == 102


async def test_a_version_that_does_not_fit_is_not_followed(bench: Bench, registry: aio.Channel) -> None:
    """A rollback goes through even so: the registry refuses all other ways to it."""
    rollouts: RolloutServiceAsyncStub = RolloutServiceStub(registry)
    await asyncio.to_thread(bench.push, "step", models.add_one(bench.folder / "narrow.onnx", 8))
    await asyncio.to_thread(bench.push, "step", models.add(bench.folder / "10.onnx", 10))
    await rollouts.Promote(PromoteRequest(name="step", version=2, weight=100, expected_revision=-1))
    manifest = CHAIN.replace("model: m0", "model: step, version: production")
    await asyncio.to_thread(bench.push, "follows", ensemble(bench.folder / "follows", manifest))
    async with gateway() as one:
        await worker(bench, "w1", holds=4, HEADRACE_MODELS="follows")
        assert await ask(bench, one, "follows") == 12
        await rollouts.Rollback(RollbackRequest(name="step", expected_revision=-1))
        await until(
            lambda: "goes on with the models that it has: step 2 ('m1'): tensor 'between'" in bench.log("worker")
        )
        assert await ask(bench, one, "follows") == 12
        await asyncio.to_thread(bench.push, "step", models.add(bench.folder / "100.onnx", 100))
        await rollouts.Promote(PromoteRequest(name="step", version=3, weight=100, expected_revision=-1))

        async def followed() -> bool:
            return await ask(bench, one, "follows") == 102

        await until(followed)


async def test_a_request_at_fault_fails_alone_and_names_its_step(bench: Bench) -> None:
    manifest = (
        "runtime: ensemble\nsteps:\n- {model: look_up, output_map: {square: a}}\n- model: sum\n  input_map: {x: a}\n"
    )
    await asyncio.to_thread(bench.push, "sum", models.row_sum(bench.folder / "sum.onnx"))
    await asyncio.to_thread(bench.push, "squares", ensemble(bench.folder / "squares", manifest))
    async with gateway() as one:
        await worker(bench, "w1", holds=4, HEADRACE_MODELS="squares")

        def index(value: int) -> WorkRequest:
            request = ModelInferRequest.FromString(work("look_up", np.array([[value]])).body)
            return WorkRequest(body=request.SerializeToString())

        good, bad, other = await bench.publish("headrace.squares.1", one.reply_to, index(3), index(99), index(4))
        assert await first_value(one, good) == 9
        assert await first_value(one, other) == 16
        error = (await answered(one, bad)).error
        assert error.code == 13
        assert "model 'squares' version 1 failed on this request: step 'look_up' version 1: " in error.message


async def test_what_an_ensemble_needs_stays_in_the_registry(bench: Bench) -> None:
    with RegistryClient(bench.environment["HEADRACE_REGISTRY"]) as client:
        for refused in (
            lambda: client.delete_model("m0"),
            lambda: client.delete_version("m0", 1),
            lambda: client.unload("m1"),
        ):
            with pytest.raises(FailedPreconditionError, match="step of ensemble 'chain'"):
                await asyncio.to_thread(refused)
        await asyncio.to_thread(client.delete_model, "chain")
        await asyncio.to_thread(client.delete_model, "m0")
