"""Which versions a worker holds, as the registry changes: loaded, loaded on demand, deleted, broken."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from grpc import aio

from headrace.client.registry import RegistryClient
from headrace.v1.fleet_pb2 import LOAD_STATE_FAILED, LOAD_STATE_READY, HeldModel, ListWorkersRequest
from headrace.v1.fleet_pb2_grpc import FleetServiceStub
from headrace.v1.model_pb2 import BatchingSpec, ModelFile, ModelSpec, TensorSpec
from headrace.v1.registry_pb2 import PublishVersionRequest, UploadBlobRequest
from headrace.v1.registry_pb2_grpc import RegistryServiceStub
from tests.integration.test_worker_bench import Bench, answered, first_value, gateway, row, running_bench, until
from tests.support import models


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """Broker and registry, no worker yet."""
    async with running_bench(tmp_path) as ready:
        yield ready


@pytest.fixture
async def registry(bench: Bench) -> AsyncIterator[aio.Channel]:
    """A channel to the registry's process."""
    async with aio.insecure_channel(bench.environment["HEADRACE_REGISTRY"]) as channel:
        yield channel


async def held(registry: aio.Channel) -> dict[tuple[str, int], HeldModel]:
    """What the fleet knows of the only worker."""
    workers = (await FleetServiceStub(registry).ListWorkers(ListWorkersRequest())).workers
    return {(model.name, model.version): model for worker in workers for model in worker.models}


async def publish_broken(registry: aio.Channel, name: str) -> None:
    """A version whose file is no model: push would refuse it, so it goes in by the back door."""
    content = b"not a model"
    digest = hashlib.sha256(content).hexdigest()

    async def parts() -> AsyncIterator[UploadBlobRequest]:
        yield UploadBlobRequest(header=UploadBlobRequest.Header(sha256=digest, size=len(content)))
        yield UploadBlobRequest(chunk=content)

    stub = RegistryServiceStub(registry)
    await stub.UploadBlob(parts())
    spec = ModelSpec(
        runtime="onnx",
        inputs=[TensorSpec(name="x", datatype="FP32", shape=[-1, 16])],
        outputs=[TensorSpec(name="y", datatype="FP32", shape=[-1, 16])],
        batching=BatchingSpec(max_batch_size=8),
        entry="model.onnx",
    )
    file = ModelFile(path="model.onnx", sha256=digest, size=len(content))
    await stub.PublishVersion(PublishVersionRequest(name=name, spec=spec, files=[file]))


async def test_older_versions_are_loaded_when_they_are_asked_for(bench: Bench, registry: aio.Channel) -> None:
    await asyncio.to_thread(bench.push, "add_one", models.add_one(bench.folder / "again.onnx"))
    async with gateway() as one:
        await bench.worker("w1")
        await bench.depth("headrace.add_one.1", 0, 1)
        await bench.depth("headrace.add_one.2", 0, 1)

        async def known() -> bool:
            return ("add_one", 2) in await held(registry)

        await until(known)
        assert ("add_one", 1) not in await held(registry)
        ids = await bench.publish("headrace.add_one.1", one.reply_to, row(1), row(2))
        assert [await first_value(one, request_id) for request_id in ids] == [2, 3]
        assert (await answered(one, ids[0])).receipt.model_version == 1
        # From then on it is a holder like any other: a full prefetch, and batches.
        ids = await bench.publish("headrace.add_one.1", one.reply_to, *(row(n) for n in range(8)))
        assert (await answered(one, ids[0])).receipt.batch_requests == 8


async def test_an_alias_loads_a_version_before_it_is_asked_for(bench: Bench, registry: aio.Channel) -> None:
    await asyncio.to_thread(bench.push, "add_one", models.add_one(bench.folder / "again.onnx"))
    await bench.worker("w1")
    assert ("add_one", 1) not in await held(registry)
    with RegistryClient(bench.environment["HEADRACE_REGISTRY"]) as client:
        await asyncio.to_thread(client.set_alias, "add_one", "stable", 1)

    async def loaded() -> bool:
        model = (await held(registry)).get(("add_one", 1))
        return model is not None and model.state == LOAD_STATE_READY

    await until(loaded)


async def test_versions_come_and_go_while_the_worker_runs(bench: Bench, registry: aio.Channel) -> None:
    async with gateway() as one:
        await bench.worker("w1")
        await asyncio.to_thread(bench.push, "late", models.add_one(bench.folder / "late.onnx"))

        async def consumed() -> bool:
            return ("late", 1) in await held(registry)

        await until(consumed)
        await bench.depth("headrace.late.1", 0, 1)
        [request_id] = await bench.publish("headrace.late.1", one.reply_to, row(1))
        assert await first_value(one, request_id) == 2
        with RegistryClient(bench.environment["HEADRACE_REGISTRY"]) as client:
            await asyncio.to_thread(client.delete_model, "late")
        await bench.depth("headrace.late.1", 0, 0)

        async def gone() -> bool:
            return ("late", 1) not in await held(registry)

        await until(gone)


async def test_a_model_that_does_not_load_says_so_and_harms_no_other(bench: Bench, registry: aio.Channel) -> None:
    await publish_broken(registry, "broken")
    async with gateway() as one:
        await bench.worker("w1")
        [broken] = await bench.publish("headrace.broken.1", one.reply_to, row(1))
        [fine] = await bench.publish("headrace.add_one.1", one.reply_to, row(1))
        error = (await answered(one, broken)).error
        assert error.code == 9
        assert "model 'broken' version 1 does not load: ONNX Runtime cannot load 'model.onnx'" in error.message
        assert await first_value(one, fine) == 2

        async def reported() -> bool:
            model = (await held(registry)).get(("broken", 1))
            return model is not None and model.state == LOAD_STATE_FAILED and "model.onnx" in model.reason

        await until(reported)


async def test_files_are_kept_and_verified(bench: Bench) -> None:
    first = await bench.worker("w1")
    first.terminate()
    assert await first.wait() == 0
    [cached] = (bench.folder / "cache" / "add_one" / "1").iterdir()
    before = cached.stat().st_ino
    second = await bench.worker("w2")
    assert cached.stat().st_ino == before
    second.terminate()
    assert await second.wait() == 0
    content = cached.read_bytes()
    cached.write_bytes(content[:-1] + b"!")
    async with gateway() as one:
        await bench.worker("w3")
        assert cached.read_bytes() == content
        [request_id] = await bench.publish("headrace.add_one.1", one.reply_to, row(1))
        assert await first_value(one, request_id) == 2
