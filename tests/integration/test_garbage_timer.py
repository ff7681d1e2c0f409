"""Collections from time to time: real registries on a folder, and timers that find one due at the same moment."""

import asyncio
import hashlib
import os
import time
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path

import grpc

from headrace.cli.ports import free_port
from headrace.v1 import registry_pb2 as pb
from services.common.objects.connect import one
from services.common.objects.directory import DirectoryStore
from services.common.objects.port import ObjectInfo
from services.registry.collector import GRACE_SECONDS, Collected, Collector
from services.registry.timer import LEASE, Timer
from tests.support.registries import Registry, registry
from tests.support.stack import wait_until
from tests.support.stores import directory

OLD = time.time() - GRACE_SECONDS - 3600


async def push_and_delete(address: str) -> tuple[str, str]:
    """Of two versions the first is deleted. Returns the digests of its file and of the other's."""
    async with grpc.aio.insecure_channel(address) as channel:
        client = Registry(channel)
        files = [await client.upload(word * 900) for word in (b"gone", b"kept")]
        for file in files:
            await client.publish("model", file)
        await client.stub.DeleteVersion(pb.DeleteVersionRequest(name="model", version=1))
    return files[0].sha256, files[1].sha256


def counted(ports: list[int]) -> dict[str, float]:
    """What the registries count of garbage, together; without the units that Prometheus adds."""
    total: dict[str, float] = {}
    for port in ports:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as page:
            for line in page.read().decode().splitlines():
                if line.startswith("headrace_garbage"):
                    name = line.replace(" ", "{").partition("{")[0] + (" failed" if 'outcome="failed"' in line else "")
                    total[name] = total.get(name, 0) + float(line.rpartition(" ")[2])
    return total


def test_of_several_registries_one_collects_what_is_due(tmp_path: Path) -> None:
    store, blobs = directory(tmp_path), tmp_path / "store" / "blobs" / "sha256"
    with registry(store, tmp_path / "before.log") as address:
        gone, kept = asyncio.run(push_and_delete(address))
    young = hashlib.sha256(b"young").hexdigest()
    for digest in (gone, kept):
        os.utime(blobs / digest, (OLD, OLD))
    (blobs / young).write_bytes(b"young")
    ports, logs = [free_port(), free_port()], [tmp_path / "first.log", tmp_path / "second.log"]
    timed = [{"HEADRACE_GC_EVERY": "3600", "HEADRACE_METRICS": f"127.0.0.1:{port}"} for port in ports]
    with registry(store, logs[0], timed[0]), registry(store, logs[1], timed[1]):
        wait_until(lambda: counted(ports)["headrace_garbage_collections_total"] > 0, "a collection")
        assert {path.name for path in blobs.iterdir()} == {kept, young}
        assert counted(ports) == {
            "headrace_garbage_collections_total": 1,
            "headrace_garbage_collections_total failed": 0,
            "headrace_garbage_files_total": 1,
            "headrace_garbage_size_bytes_total": 3600,
        }
    told = "".join(log.read_text() for log in logs)
    assert told.count("removed 1 files that no version uses, 3600 bytes; 1 are used, 1 too young") == 1


class Watched(DirectoryStore):
    """A store that tells when somebody has looked at the lease."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.looked = asyncio.Event()

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        async for info in super().list(prefix):
            yield info
        if prefix == LEASE:
            self.looked.set()


async def test_timers_that_find_a_collection_due_at_once_collect_once(tmp_path: Path) -> None:
    """The one that comes second waits, and finds that it is not due any more."""
    stores, begun, collected = [Watched(tmp_path), Watched(tmp_path)], asyncio.Event(), list[Collected | None]()
    await stores[0].put("blobs/sha256/" + "0" * 64, one(b"old"))
    os.utime(tmp_path / "blobs" / "sha256" / ("0" * 64), (OLD, OLD))

    class Slow(Collector):
        async def collect(self, grace_seconds: float = GRACE_SECONDS, *, dry_run: bool = False) -> Collected:
            begun.set()
            await stores[1].looked.wait()
            return await super().collect(grace_seconds, dry_run=dry_run)

    timers = [Timer(store, Slow(store, collected.append), 3600, str(at)) for at, store in enumerate(stores)]
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        group.create_task(timers[0].look())
        await begun.wait()
        group.create_task(timers[1].look())
    assert [[blob.size for blob in found.collected] for found in collected if found is not None] == [[3]]
    await timers[1].look()
    assert len(collected) == 1
