"""What the registry promises, over each store: real processes, two of them where the store honours conditions."""

import asyncio
import hashlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from grpc import aio

from headrace.v1 import registry_pb2 as pb
from headrace.v1.model_pb2 import BatchingSpec, EnsembleSpec, EnsembleStep, Model, ModelFile, ModelSpec, TensorSpec
from headrace.v1.registry_pb2_grpc import RegistryServiceStub
from headrace.v1.rollout_pb2 import PromoteRequest, RollbackRequest
from headrace.v1.rollout_pb2_grpc import RolloutServiceStub
from tests.support.stores import RunningStore

X, Y = TensorSpec(name="x", datatype="FP32", shape=[-1, 4]), TensorSpec(name="y", datatype="FP32", shape=[-1, 4])
SPEC = ModelSpec(runtime="onnx", entry="model.onnx", inputs=[X], outputs=[Y], batching=BatchingSpec(max_batch_size=8))


@contextmanager
def registry(store: RunningStore, log: Path) -> Iterator[str]:
    """A registry process; yields its address."""
    environment = {**os.environ, **store.environment, "HEADRACE_STORE": store.url, "HEADRACE_LISTEN": "127.0.0.1:0"}
    command = [sys.executable, "-m", "services.registry"]
    with (
        log.open("wb") as output,
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=output) as process,
    ):
        try:
            assert process.stdout is not None
            ready = process.stdout.readline().decode().split()
            assert ready, log.read_text()
            yield ready[2]
        finally:
            process.kill()


@pytest.fixture(scope="module")
def addresses(running_store: RunningStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Two registries on one store; where that cannot be safe, the same one twice."""
    folder = tmp_path_factory.mktemp("registries")
    with registry(running_store, folder / "first.log") as first:
        if not running_store.conditional:
            yield first, first
            return
        with registry(running_store, folder / "second.log") as second:
            yield first, second


class Registry:
    """A client that says what it sends."""

    def __init__(self, channel: aio.Channel) -> None:
        self.stub = RegistryServiceStub(channel)
        self.rollouts = RolloutServiceStub(channel)

    async def upload(self, content: bytes, digest: str = "") -> ModelFile:
        """One blob, in pieces."""
        digest = digest or hashlib.sha256(content).hexdigest()

        async def parts() -> AsyncIterator[pb.UploadBlobRequest]:
            yield pb.UploadBlobRequest(header=pb.UploadBlobRequest.Header(sha256=digest, size=len(content)))
            for start in range(0, len(content), 1000):
                yield pb.UploadBlobRequest(chunk=content[start : start + 1000])

        await self.stub.UploadBlob(parts())
        return ModelFile(path="model.onnx", sha256=digest, size=len(content))

    async def publish(self, name: str, file: ModelFile, version: int = 0, spec: ModelSpec = SPEC) -> int:
        """The version's number."""
        request = pb.PublishVersionRequest(name=name, spec=spec, files=[file], version=version)
        return (await self.stub.PublishVersion(request)).version.version

    async def model(self, name: str) -> Model:
        """As listed now."""
        return (await self.stub.GetModel(pb.GetModelRequest(name=name))).model


@pytest.fixture
async def registries(addresses: tuple[str, str]) -> AsyncIterator[tuple[Registry, Registry]]:
    """Clients of both."""
    async with aio.insecure_channel(addresses[0]) as first, aio.insecure_channel(addresses[1]) as second:
        yield Registry(first), Registry(second)


async def test_concurrent_pushes_of_one_name_lose_none(registries: tuple[Registry, Registry]) -> None:
    """Each gets a number of its own, and what stands under the number is what was pushed."""

    async def push(number: int) -> tuple[int, str]:
        registry = registries[number % 2]
        file = await registry.upload(b"content %d" % number * 500)
        return await registry.publish("crowd", file), file.sha256

    pushed = await asyncio.gather(*map(push, range(16)))
    assert sorted(number for number, _ in pushed) == list(range(1, 17))
    for registry in registries:
        found = await registry.model("crowd")
        assert {version.version: version.files[0].sha256 for version in found.versions} == dict(pushed)


async def test_of_those_who_ask_for_one_number_one_gets_it(registries: tuple[Registry, Registry]) -> None:
    files = [await registry.upload(b"asked %d" % at) for at, registry in enumerate(registries)]
    results = await asyncio.gather(
        *(registry.publish("asked", file, 7) for registry, file in zip(registries, files, strict=True)),
        return_exceptions=True,
    )
    refused = [result for result in results if isinstance(result, aio.AioRpcError)]
    assert [error.code() for error in refused] == [grpc.StatusCode.ALREADY_EXISTS]
    assert results.count(7) == 1
    assert "leave the number out" in str(refused[0].details())
    winner = files[results.index(7)]
    assert [list(version.files) for version in (await registries[0].model("asked")).versions] == [[winner]]


async def test_a_blob_that_is_not_what_it_says_leaves_nothing(registries: tuple[Registry, Registry]) -> None:
    first, second = registries
    digest = hashlib.sha256(b"what was announced").hexdigest()
    with pytest.raises(aio.AioRpcError, match="send it again") as refused:
        await first.upload(b"something else", digest)
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    missing = pb.FindMissingBlobsRequest(sha256=[digest])
    assert list((await second.stub.FindMissingBlobs(missing)).sha256) == [digest]
    with pytest.raises(aio.AioRpcError, match="not uploaded") as early:
        await second.publish("early", ModelFile(path="model.onnx", sha256=digest, size=18))
    assert early.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    # The push goes on where it was: only what is missing is sent.
    file = await first.upload(b"what was announced")
    assert not (await second.stub.FindMissingBlobs(missing)).sha256
    assert await second.publish("early", file) == 1


async def test_a_number_is_never_used_again(registries: tuple[Registry, Registry]) -> None:
    first, second = registries
    file = await first.upload(b"short-lived")
    assert [await first.publish("reused", file) for _ in range(3)] == [1, 2, 3]
    await second.stub.DeleteVersion(pb.DeleteVersionRequest(name="reused", version=3))
    assert await second.publish("reused", file) == 4
    await first.stub.DeleteModel(pb.DeleteModelRequest(name="reused"))
    with pytest.raises(aio.AioRpcError, match="no model"):
        await second.model("reused")
    assert await second.publish("reused", file) == 5


async def test_what_no_version_uses_is_collected(registries: tuple[Registry, Registry]) -> None:
    first, second = registries
    gone, kept, fresh = [await first.upload(word * 900) for word in (b"gone", b"kept", b"fresh")]
    both = pb.FindMissingBlobsRequest(sha256=[gone.sha256, kept.sha256])
    for file in (gone, kept):
        await first.publish("collected", file)
    await second.stub.DeleteVersion(pb.DeleteVersionRequest(name="collected", version=1))
    young = await second.stub.CollectGarbage(pb.CollectGarbageRequest())
    assert (list(young.collected), young.young >= 2) == ([], True)
    told = await second.stub.CollectGarbage(pb.CollectGarbageRequest(dry_run=True, grace_seconds=0))
    assert {blob.sha256: blob.size for blob in told.collected}.items() >= {
        gone.sha256: 3600,
        fresh.sha256: 4500,
    }.items()
    assert kept.sha256 not in {blob.sha256 for blob in told.collected}
    assert not (await first.stub.FindMissingBlobs(both)).sha256
    done = await second.stub.CollectGarbage(pb.CollectGarbageRequest(grace_seconds=0))
    assert {blob.sha256 for blob in done.collected} == {blob.sha256 for blob in told.collected}
    assert list((await first.stub.FindMissingBlobs(both)).sha256) == [gone.sha256]
    # What was collected can be pushed again.
    assert await first.publish("collected", await first.upload(b"gone" * 900)) == 3


async def test_pushes_lose_nothing_to_collections_beside_them(registries: tuple[Registry, Registry]) -> None:
    """The same content is pushed, deleted and pushed, while both registries collect at every moment they can."""
    pushed = asyncio.Event()

    async def push(number: int) -> None:
        registry, content = registries[number % 2], b"shared" * 700
        for _ in range(4):
            while True:
                file = await registry.upload(content)
                try:
                    version = await registry.publish(f"beside-{number}", file)
                except aio.AioRpcError as error:
                    assert error.code() == grpc.StatusCode.FAILED_PRECONDITION, error
                    await asyncio.sleep(0.01)
                else:
                    break
            missing = pb.FindMissingBlobsRequest(sha256=[file.sha256])
            # A sweep that had begun before the version was there may still name its blob.
            async with asyncio.timeout(60):
                while (await registry.stub.FindMissingBlobs(missing)).sha256:  # noqa: ASYNC110  # nobody tells
                    await asyncio.sleep(0.05)
            await registry.stub.DeleteVersion(pb.DeleteVersionRequest(name=f"beside-{number}", version=version))

    async def collect(registry: Registry) -> int:
        collected = 0
        while not pushed.is_set():
            collected += len((await registry.stub.CollectGarbage(pb.CollectGarbageRequest(grace_seconds=0))).collected)
        return collected

    async with asyncio.TaskGroup() as group:
        collecting = [group.create_task(collect(registry)) for registry in registries]
        await asyncio.gather(push(0), push(1))
        pushed.set()
    assert sum(task.result() for task in collecting) > 0


async def test_aliases_and_the_unloaded_mark_are_seen_by_the_other(registries: tuple[Registry, Registry]) -> None:
    first, second = registries
    file = await first.upload(b"marked")
    for _ in range(2):
        await first.publish("marked", file)
    await first.stub.SetAlias(pb.SetAliasRequest(name="marked", alias="stable", version=1))
    await second.stub.SetUnloaded(pb.SetUnloadedRequest(name="marked", unloaded=True))
    for registry in registries:
        model = await registry.model("marked")
        assert (dict(model.aliases), model.unloaded) == ({"stable": 1}, True)
    with pytest.raises(aio.AioRpcError, match="move the alias first"):
        await second.stub.DeleteVersion(pb.DeleteVersionRequest(name="marked", version=1))
    with pytest.raises(aio.AioRpcError, match="there are: 1, 2"):
        await second.stub.SetAlias(pb.SetAliasRequest(name="marked", alias="stable", version=9))
    await first.stub.SetUnloaded(pb.SetUnloadedRequest(name="marked", unloaded=False))
    await second.stub.DeleteAlias(pb.DeleteAliasRequest(name="marked", alias="stable"))
    model = await first.model("marked")
    assert (dict(model.aliases), model.unloaded) == ({}, False)
    # A model that comes again under its name is not the one that was unloaded.
    await first.stub.SetUnloaded(pb.SetUnloadedRequest(name="marked", unloaded=True))
    await second.stub.DeleteModel(pb.DeleteModelRequest(name="marked"))
    await first.publish("marked", file)
    assert not (await second.model("marked")).unloaded


async def test_whoever_watches_hears_of_what_the_other_wrote(registries: tuple[Registry, Registry]) -> None:
    first, second = registries
    watch = second.stub.WatchModels(pb.WatchModelsRequest())
    async with asyncio.timeout(30):
        async for event in watch:
            if event.synced:
                break
        file = await first.upload(b"watched")
        await first.publish("watched", file)
        async for event in watch:
            if event.changed.name == "watched":
                break
        await first.stub.DeleteModel(pb.DeleteModelRequest(name="watched"))
        async for event in watch:
            if event.deleted == "watched":
                break
    watch.cancel()


def following(model: str, version: str) -> ModelSpec:
    """An ensemble of one step."""
    steps = EnsembleSpec(steps=[EnsembleStep(model=model, version=version)])
    return ModelSpec(runtime="ensemble", entry="model.onnx", ensemble=steps)


@pytest.mark.parametrize("followed", ["production", "latest"])
async def test_no_ensemble_gets_a_version_that_does_not_fit_it(
    registries: tuple[Registry, Registry], followed: str
) -> None:
    first, second = registries
    member, pipeline = f"member-{followed}", f"pipeline-{followed}"
    file = await first.upload(b"member")
    await first.publish(member, file)
    await first.rollouts.Promote(PromoteRequest(name=member, version=1, weight=100, expected_revision=-1))
    await first.publish(pipeline, file, spec=following(member, followed))
    other = ModelSpec()
    other.CopyFrom(SPEC)
    other.outputs[0].datatype = "INT64"
    refused = f"ensemble '{pipeline}' version 1 follows '{followed}' of '{member}', and version 2 does not fit: .*INT64"
    if followed == "latest":
        with pytest.raises(aio.AioRpcError, match=refused):
            await second.publish(member, file, spec=other)
        assert await second.publish(member, file) == 2
        return
    assert await second.publish(member, file, spec=other) == 2
    with pytest.raises(aio.AioRpcError, match=refused) as error:
        await second.rollouts.Promote(PromoteRequest(name=member, version=2, weight=100, expected_revision=-1))
    assert error.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    # On trial it is nobody's production yet.
    await second.rollouts.Promote(PromoteRequest(name=member, version=2, weight=10, expected_revision=-1))
    assert (await first.model(member)).aliases["production"] == 1


async def test_a_rollback_goes_through_and_says_which_ensemble_it_leaves_behind(
    registries: tuple[Registry, Registry],
) -> None:
    first, second = registries
    file = await first.upload(b"returned")
    other = ModelSpec()
    other.CopyFrom(SPEC)
    other.outputs[0].datatype = "INT64"
    for spec in (SPEC, other):
        await first.publish("returned", file, spec=spec)
    await first.rollouts.Promote(PromoteRequest(name="returned", version=2, weight=100, expected_revision=-1))
    await second.publish("behind", file, spec=following("returned", "production"))
    back = await second.rollouts.Rollback(RollbackRequest(name="returned", reason="too slow", expected_revision=-1))
    assert back.rollout.stable == 1
    assert back.rollout.reason.startswith("too slow; ensemble 'behind' version 1 follows 'production' of 'returned'")
