"""More models than fit: loaded when asked for, evicted when others are, and never in each other's way."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path

import pytest
from grpc import aio

from headrace.inference.grpc_service_pb2 import ModelInferRequest
from headrace.v1.fleet_pb2 import LOAD_STATE_FAILED, LOAD_STATE_READY, ListWorkersRequest, Worker
from headrace.v1.fleet_pb2_grpc import FleetServiceStub
from headrace.v1.work_pb2 import WorkRequest
from services.common.queues import queue_name
from services.worker.subscription import home_priority
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
from tests.support import models

# Each declares so much that what the process really grows by does not matter.
DECLARED_MIB = 256


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """Broker and registry with six models beside the usual ones, no worker yet."""
    async with running_bench(tmp_path) as ready:
        for number in range(6):
            await asyncio.to_thread(ready.push, f"m{number}", package(tmp_path / f"m{number}"))
        yield ready


@pytest.fixture
async def registry(bench: Bench) -> AsyncIterator[aio.Channel]:
    """A channel to the registry's process."""
    async with aio.insecure_channel(bench.environment["HEADRACE_REGISTRY"]) as channel:
        yield channel


def package(folder: Path, mebibytes: int = DECLARED_MIB) -> Path:
    """add_one as a package that declares its memory."""
    folder.mkdir()
    models.add_one(folder / "model.onnx")
    (folder / "model.yaml").write_text(f"memory: {mebibytes}MiB\n")
    return folder


async def worker(bench: Bench, name: str, *, holds: int, **environment: str) -> None:
    """A worker with room for so many of the models."""
    budget = {"HEADRACE_MEMORY_BUDGET": f"{holds * DECLARED_MIB}MiB", "HEADRACE_RESIDENCY_SECONDS": "0"}
    served = {"HEADRACE_MODELS": ",".join(f"m{number}" for number in range(6)), "HEADRACE_WORKER_ID": name}
    cache = {"HEADRACE_CACHE": str(bench.folder / "cache")}
    await bench.start("worker", **(budget | served | cache | environment))


async def ask(bench: Bench, one: Gateway, model: str, value: float = 1) -> float:
    """One request, answered."""
    [request_id] = await bench.publish(queue_name(model, 1), one.reply_to, row(value))
    return await first_value(one, request_id)


async def fleet(registry: aio.Channel) -> dict[str, Worker]:
    """What the fleet knows, by worker."""
    workers = (await FleetServiceStub(registry).ListWorkers(ListWorkersRequest())).workers
    return {worker.id: worker for worker in workers}


def ready(said: Worker) -> set[str]:
    """Models in the worker's memory."""
    return {model.name for model in said.models if model.state == LOAD_STATE_READY}


async def holds(registry: aio.Channel, name: str, *expected: str) -> None:
    """Until the worker says that it holds these and no others."""

    async def says_so() -> bool:
        said = (await fleet(registry)).get(name)
        return said is not None and ready(said) == set(expected)

    await until(says_so)


async def test_the_least_recently_used_leaves_for_what_is_asked_for(bench: Bench, registry: aio.Channel) -> None:
    async with gateway() as one:
        await worker(bench, "w1", holds=2)
        await holds(registry, "w1")  # not all six fit: none is loaded before it is asked for
        for model in ("m0", "m1", "m0", "m2"):
            assert await ask(bench, one, model) == 2
        await holds(registry, "w1", "m0", "m2")
        assert await ask(bench, one, "m1") == 2
        await holds(registry, "w1", "m1", "m2")
        said = (await fleet(registry))["w1"]
        assert (said.loads, said.evictions) == (4, 2)
        assert said.memory_used_bytes <= said.memory_budget_bytes == 2 * DECLARED_MIB * 2**20


async def test_all_are_loaded_before_they_are_asked_for_where_all_fit(bench: Bench, registry: aio.Channel) -> None:
    await worker(bench, "w1", holds=6)
    await holds(registry, "w1", *(f"m{number}" for number in range(6)))


async def test_requests_in_any_order_for_more_models_than_fit_are_all_answered(bench: Bench) -> None:
    async with gateway() as one:
        await worker(bench, "w1", holds=2)
        await worker(bench, "w2", holds=2)
        numbers = [number * 7 % 6 for number in range(120)]
        values = await asyncio.gather(*(ask(bench, one, f"m{model}", at) for at, model in enumerate(numbers)))
        assert values == [at + 1 for at in range(120)]


async def test_what_was_loaded_a_moment_ago_is_not_evicted(bench: Bench, registry: aio.Channel) -> None:
    async with gateway() as one:
        await worker(bench, "w1", holds=1, HEADRACE_RESIDENCY_SECONDS="3")
        loop = asyncio.get_running_loop()
        assert await ask(bench, one, "m0") == 2
        began = loop.time()
        assert await ask(bench, one, "m1") == 2  # waits for its turn; a lower bound, not a timing
        assert loop.time() - began > 2
        await holds(registry, "w1", "m1")


async def test_a_model_over_the_whole_budget_says_so(bench: Bench, registry: aio.Channel) -> None:
    await asyncio.to_thread(bench.push, "huge", package(bench.folder / "huge", 10 * DECLARED_MIB))
    async with gateway() as one:
        await worker(bench, "w1", holds=2, HEADRACE_MODELS="m0,huge")
        [huge] = await bench.publish("headrace.huge.1", one.reply_to, row(1))
        error = (await answered(one, huge)).error
        assert error.code == 9
        assert "needs 2,560.0 MiB, over this worker's memory budget of 512.0 MiB" in error.message
        assert await ask(bench, one, "m0") == 2
        said = {model.name: model for model in (await fleet(registry))["w1"].models}
        assert said["huge"].state == LOAD_STATE_FAILED


async def test_a_worker_where_it_cannot_be_loaded_leaves_it_to_one_where_it_can(
    bench: Bench, registry: aio.Channel
) -> None:
    async with gateway() as one:
        await worker(bench, "small", holds=1, HEADRACE_MEMORY_BUDGET="1MiB")
        await worker(bench, "large", holds=6)
        await holds(registry, "large", *(f"m{number}" for number in range(6)))
        values = [await ask(bench, one, f"m{at % 6}", at) for at in range(60)]
        assert values == [at + 1 for at in range(60)]
        assert ready((await fleet(registry))["small"]) == set()


async def test_requests_for_a_cold_model_load_it_once_at_home(bench: Bench, registry: aio.Channel) -> None:
    names = ("w1", "w2")
    homes = {
        model: max(names, key=lambda name: home_priority(name, queue_name(model, 1)))
        for model in (f"m{number}" for number in range(6))
        if len({home_priority(name, queue_name(model, 1)) for name in names}) == 2
    }
    assert len(homes) >= 4
    async with gateway() as one:
        for name in names:
            await worker(bench, name, holds=5)
        for model in homes:
            await bench.depth(queue_name(model, 1), 0, 2)
            assert await ask(bench, one, model) == 2
            assert await asyncio.gather(*(ask(bench, one, model, at) for at in range(20))) == [*range(1, 21)]
        for name in names:
            await holds(registry, name, *(model for model, home in homes.items() if home == name))


async def test_work_spills_to_another_worker_only_when_the_holder_is_saturated(
    bench: Bench, registry: aio.Channel
) -> None:
    folder = bench.folder / "busy"
    folder.mkdir()
    models.burn(folder / "model.onnx")
    (folder / "model.yaml").write_text(f"memory: {DECLARED_MIB}MiB\nwarmup: {{disabled: true}}\n")
    await asyncio.to_thread(bench.push, "busy", folder)

    def turns(count: int) -> WorkRequest:
        made = work("burn", count)
        request = ModelInferRequest.FromString(made.body)
        request.model_name = "busy"
        return WorkRequest(body=request.SerializeToString())

    async def holders() -> list[str]:
        return [name for name, said in (await fleet(registry)).items() if "busy" in ready(said)]

    async with gateway() as one:
        for name in ("w1", "w2"):
            await worker(bench, name, holds=2, HEADRACE_MODELS="busy,m0,m1")
        await bench.depth("headrace.busy.1", 0, 2)
        for _ in range(5):
            [request_id] = await bench.publish("headrace.busy.1", one.reply_to, turns(1))
            assert (await answered(one, request_id)).WhichOneof("outcome") == "body"
        await until(lambda: _one(holders()))
        # The holder takes two at a time of what cannot be batched: the third is more than it wants.
        ids = [(await bench.publish("headrace.busy.1", one.reply_to, turns(2_000)))[0] for _ in range(3)]
        await until(lambda: _both(holders()))
        for request_id in ids:
            assert (await answered(one, request_id)).WhichOneof("outcome") == "body"


async def _one(holders: Awaitable[list[str]]) -> bool:
    return len(await holders) == 1


async def _both(holders: Awaitable[list[str]]) -> bool:
    return sorted(await holders) == ["w1", "w2"]
