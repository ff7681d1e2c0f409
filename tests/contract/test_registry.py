"""What the registry promises, over each store: two real processes on one."""

import asyncio
import hashlib

import grpc
import pytest
from grpc import aio

from headrace.v1 import registry_pb2 as pb
from headrace.v1.model_pb2 import ModelFile
from tests.support.registries import Registry


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
