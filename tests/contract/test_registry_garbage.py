"""Collections of what no version uses, over each store: two real registries that collect beside pushes."""

import asyncio

import grpc
from grpc import aio

from headrace.v1 import registry_pb2 as pb
from tests.support.registries import Registry


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
