"""Pushes, deletions and collections, their steps in every order: no version is ever without its files.

The registry's own code on a store in memory that holds each of its calls until a driver lets it through.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Coroutine
from contextlib import suppress
from itertools import chain, count
from typing import Any

import pytest
from google.protobuf.json_format import Parse
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.v1.model_pb2 import ModelFile, ModelSpec, ModelVersion, TensorSpec
from services.common.errors import AlreadyExists, FailedPrecondition, NotFound
from services.common.objects.connect import one, whole
from services.common.objects.port import ObjectInfo
from services.registry.blobs import BLOBS, PIN_SECONDS, STALE_SECONDS, SWEEP_SECONDS
from services.registry.catalog import Catalog
from services.registry.collector import Collector

CONTENTS = [b"weights", b"tokeniser"]
DIGESTS = [hashlib.sha256(content).hexdigest() for content in CONTENTS]
X = TensorSpec(name="x", datatype="FP32", shape=[-1])
SPEC = ModelSpec(runtime="onnx", entry="0", inputs=[X], outputs=[X])
FILES = [
    ModelFile(path=str(place), sha256=digest, size=len(content))
    for place, (digest, content) in enumerate(zip(DIGESTS, CONTENTS, strict=True))
]


class SteppedStore:
    """Implements ObjectStore. Each call takes effect at once, when the driver says so."""

    def __init__(self) -> None:
        self.objects: dict[str, tuple[bytes, float]] = {}
        self.waiting: dict[asyncio.Task[Any] | None, asyncio.Future[None]] = {}
        self.stepped = False
        self.now = 1e9

    async def put(self, key: str, chunks: AsyncIterator[bytes], *, if_absent: bool = False) -> ObjectInfo:
        content = b"".join([chunk async for chunk in chunks])
        await self._turn()
        if if_absent and key in self.objects:
            raise AlreadyExists(key)
        self.objects[key] = content, self.now
        return ObjectInfo(key, len(content), "")

    async def get(self, key: str) -> AsyncIterator[bytes]:
        await self._turn()
        if key not in self.objects:
            raise NotFound(key)
        yield self.objects[key][0]

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        await self._turn()
        for key, (content, written) in sorted(self.objects.items()):
            if key.startswith(prefix):
                yield ObjectInfo(key, len(content), f"{written} {len(content)}", written)

    async def delete(self, key: str) -> None:
        await self._turn()
        self.objects.pop(key, None)

    async def url(self, key: str, expires: float) -> str:
        raise NotImplementedError

    async def _turn(self) -> None:
        self.now += 0.001
        if self.stepped:
            self.waiting[asyncio.current_task()] = turn = asyncio.get_running_loop().create_future()
            await turn
        else:
            await asyncio.sleep(0)

    def let_all_through(self) -> None:
        """From now on nobody waits."""
        self.stepped = False
        for turn in self.waiting.values():
            turn.set_result(None)
        self.waiting.clear()

    def check(self) -> None:
        """Every version that is visible has its files."""
        for key, (content, _) in self.objects.items():
            if "/versions/" in key and content:
                for file in Parse(content, ModelVersion()).files:
                    assert BLOBS + file.sha256 in self.objects, f"{key} has lost a file"


async def push(catalog: Catalog) -> None:
    """As clients do it: what is missing is sent, and what was swept meanwhile is sent again."""
    while True:
        for digest in await catalog.blobs.missing(DIGESTS):
            content = CONTENTS[DIGESTS.index(digest)]
            await catalog.blobs.upload(digest, len(content), one(content))
        with suppress(FailedPrecondition):
            await catalog.publish("model", SPEC, FILES, 0)
            return


async def drive(store: SteppedStore, work: list[Coroutine[Any, Any, Any]], turns: list[tuple[int, int]]) -> None:
    """Runs all work to its end, one call to the store after the other.

    Args:
        turns: whose turn it is, and for how many calls; after the last of them it is everybody's, one call each, else
            a push might ask for ever while a collection stands still.
    """
    store.stepped = True
    tasks = [asyncio.create_task(each) for each in work]
    everybody = ((place, 1) for _ in count() for place in range(len(tasks)))
    try:
        for drawn, calls in chain(turns, everybody):
            place = drawn % len(tasks)
            for _ in range(calls):
                await settled()
                if tasks[place] in store.waiting:
                    store.waiting.pop(tasks[place]).set_result(None)
                    await settled()
                    store.check()
            if all(task.done() for task in tasks):
                break
    finally:
        store.let_all_through()
        await asyncio.gather(*tasks)


async def settled() -> None:
    """Whoever can go on has done so, up to its next call."""
    for _ in range(8):
        await asyncio.sleep(0)


TURNS = st.lists(st.tuples(st.integers(0, 4), st.integers(1, 12)), min_size=6, max_size=30)


@pytest.mark.parametrize("each", [1, 2], ids=["one push and one collection", "two of each"])
@settings(max_examples=300, deadline=None)
@given(turns=TURNS)
def test_no_version_loses_a_file_to_a_collection(each: int, turns: list[tuple[int, int]]) -> None:
    async def play() -> None:
        store = SteppedStore()
        registries = [Catalog(store) for _ in range(each)]
        await push(registries[0])
        pushes = [push(registry) for registry in registries]
        collections = [Collector(store).collect(0) for _ in range(each)]
        await drive(store, [*pushes, *collections, registries[0].delete_version("model", 1)], turns)
        versions = (await registries[0].model("model")).versions
        assert [version.version for version in versions] == [*range(2, 2 + each)]

    asyncio.run(play())


async def test_what_a_dead_collector_was_about_to_take_is_free_again_later() -> None:
    store = SteppedStore()
    catalog, collector = Catalog(store), Collector(store)
    await push(catalog)
    await catalog.delete_version("model", 1)
    store.stepped = True
    collecting = asyncio.create_task(collector.collect(0))
    while not any(key.startswith("garbage/sweeps/") for key in store.objects):
        await settled()
        store.waiting.pop(collecting).set_result(None)
        await settled()
    collecting.cancel()
    await asyncio.gather(collecting, return_exceptions=True)
    store.stepped = False
    with pytest.raises(FailedPrecondition, match="just being swept"):
        await catalog.publish("model", SPEC, FILES, 0)
    store.now += STALE_SECONDS + 1
    await catalog.publish("model", SPEC, FILES, 0)
    assert (await collector.collect(0)).used == len(FILES)
    assert not any(key.startswith("garbage/") for key in store.objects)


async def test_a_manifest_that_cannot_be_read_stops_the_collection() -> None:
    store = SteppedStore()
    catalog = Catalog(store)
    await push(catalog)
    await store.put("models/model/versions/00000001", one(b"{"))
    with pytest.raises(FailedPrecondition, match="versions/00000001' is damaged"):
        await Collector(store).collect(0)
    assert await whole(store, BLOBS + DIGESTS[0]) == CONTENTS[0]


def test_nobody_acts_on_what_others_take_for_dead() -> None:
    """And there is time for the last call of each to hang in a slow store."""
    assert max(PIN_SECONDS, SWEEP_SECONDS) + 900 < STALE_SECONDS
