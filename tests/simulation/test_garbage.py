"""Pushes, deletions and collections, their steps in every order: no version is ever without its files.

The registry's own code on a store in memory that holds each of its calls until a driver lets it through.
"""

import asyncio
import hashlib
from contextlib import suppress

import pytest
from google.protobuf.json_format import Parse
from hypothesis import given, settings

from headrace.v1.model_pb2 import ModelFile, ModelSpec, ModelVersion, TensorSpec
from services.common.errors import FailedPrecondition
from services.common.objects.connect import one, whole
from services.registry.blobs import BLOBS, PIN_SECONDS, STALE_SECONDS, SWEEP_SECONDS
from services.registry.catalog import Catalog
from services.registry.collector import Collector
from tests.support.stepped_store import TURNS, SteppedStore, changes_on, drive

CONTENTS = [b"weights", b"tokeniser"]
DIGESTS = [hashlib.sha256(content).hexdigest() for content in CONTENTS]
X = TensorSpec(name="x", datatype="FP32", shape=[-1])
SPEC = ModelSpec(runtime="onnx", entry="0", inputs=[X], outputs=[X])
FILES = [
    ModelFile(path=str(place), sha256=digest, size=len(content))
    for place, (digest, content) in enumerate(zip(DIGESTS, CONTENTS, strict=True))
]


async def check(store: SteppedStore) -> None:
    """Every version that is visible has its files."""
    for key, (content, _) in store.objects.items():
        if "/versions/" in key and content:
            for file in Parse(content, ModelVersion()).files:
                assert BLOBS + file.sha256 in store.objects, f"{key} has lost a file"


async def push(catalog: Catalog) -> None:
    """As clients do it: what is missing is sent, and what was swept meanwhile is sent again."""
    while True:
        for digest in await catalog.blobs.missing(DIGESTS):
            content = CONTENTS[DIGESTS.index(digest)]
            await catalog.blobs.upload(digest, len(content), one(content))
        with suppress(FailedPrecondition):
            await catalog.publish("model", SPEC, FILES, 0)
            return


@pytest.mark.parametrize("each", [1, 2], ids=["one push and one collection", "two of each"])
@settings(max_examples=300, deadline=None)
@given(turns=TURNS)
def test_no_version_loses_a_file_to_a_collection(each: int, turns: list[tuple[int, int]]) -> None:
    async def play() -> None:
        store = SteppedStore()
        registries = [Catalog(store, changes_on(store)) for _ in range(each)]
        await push(registries[0])
        pushes = [push(registry) for registry in registries]
        collections = [Collector(store).collect(0) for _ in range(each)]
        await drive(store, [*pushes, *collections, registries[0].delete_version("model", 1)], turns, check)
        versions = (await registries[0].model("model")).versions
        assert [version.version for version in versions] == [*range(2, 2 + each)]

    asyncio.run(play())


async def test_what_a_dead_collector_was_about_to_take_is_free_again_later() -> None:
    store = SteppedStore()
    catalog, collector = Catalog(store), Collector(store)
    await push(catalog)
    await catalog.delete_version("model", 1)
    store.stepped = True
    collecting = store.begin(collector.collect(0))
    while not any(key.startswith("garbage/sweeps/") for key in store.objects):
        await store.step(collecting)
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
