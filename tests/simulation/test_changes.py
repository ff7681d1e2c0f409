"""Changes of the catalogue by several registries, their steps in every order: no ensemble is ever left broken.

The registry's own code on a store in memory that ignores conditions and holds each of its calls until a driver lets it
through.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.v1.model_pb2 import EnsembleSpec, EnsembleStep, ModelFile, ModelSpec, TensorSpec
from headrace.v1.rollout_pb2 import PromoteRequest
from services.common.ensembles import check_fit, found_in
from services.common.errors import Conflict, FailedPrecondition, HeadraceError, NotFound, Unavailable
from services.common.objects.connect import one
from services.registry.blobs import BLOBS
from services.registry.catalog import Catalog
from services.registry.changes import CHANGE_SECONDS, CHANGES, STALE_SECONDS, WAIT_SECONDS
from services.registry.collector import Collector
from services.registry.rollout_chain import RolloutChain
from tests.support.stepped_store import TURNS, SteppedStore, changes_on, drive

CONTENT = b"weights"
FILE = ModelFile(path="model", sha256=hashlib.sha256(CONTENT).hexdigest(), size=len(CONTENT))


def member(takes: str, gives: str, size: int = -1, datatype: str = "FP32") -> ModelSpec:
    """A model of one tensor each; the one that goes between the two members has this size and datatype."""
    tensors = [
        TensorSpec(
            name=name, datatype=datatype if name == "between" else "FP32", shape=[size if name == "between" else 4]
        )
        for name in (takes, gives)
    ]
    return ModelSpec(runtime="onnx", entry="model", inputs=tensors[:1], outputs=tensors[1:])


def ensemble(first: str, second: str) -> ModelSpec:
    steps = EnsembleSpec(steps=[EnsembleStep(model="a", version=first), EnsembleStep(model="b", version=second)])
    return ModelSpec(runtime="ensemble", entry="model", ensemble=steps)


class Registry:
    """One of several on a store."""

    def __init__(self, store: SteppedStore) -> None:
        self.catalog = Catalog(store, changes_on(store))
        self.chain = RolloutChain(self.catalog, store)

    async def push(self, name: str, spec: ModelSpec) -> int:
        return (await self.catalog.publish(name, spec, [FILE], 0)).version

    async def promote(self, name: str, version: int) -> None:
        await self.chain.promote(PromoteRequest(name=name, version=version, weight=100, expected_revision=-1))


Work = Callable[[Registry], Awaitable[object]]
# Alone each is well; of some two only one may come to pass. Versions 2 make what goes between two models another
# thing: of `a` and `b` alike free sizes, of one alone a size that the other does not have.
WORK: dict[str, Work] = {
    "push e of aliases": lambda registry: registry.push("e", ensemble("good", "good")),
    "push e of numbers": lambda registry: registry.push("e", ensemble("3", "1")),
    "push e of production": lambda registry: registry.push("e", ensemble("production", "1")),
    "push e of latest": lambda registry: registry.push("e", ensemble("latest", "latest")),
    "push a that fits": lambda registry: registry.push("a", member("x", "between")),
    "push a that does not": lambda registry: registry.push("a", member("x", "between", datatype="INT64")),
    "move a to another datatype": lambda registry: registry.catalog.set_alias("a", "good", 4),
    "move a to 32": lambda registry: registry.catalog.set_alias("a", "good", 2),
    "move b to 64": lambda registry: registry.catalog.set_alias("b", "good", 2),
    "move a back": lambda registry: registry.catalog.set_alias("a", "good", 1),
    "promote a": lambda registry: registry.promote("a", 4),
    "delete version of a": lambda registry: registry.catalog.delete_version("a", 3),
    "delete alias of b": lambda registry: registry.catalog.delete_alias("b", "good"),
    "delete b": lambda registry: registry.catalog.delete_model("b"),
    "unload a": lambda registry: registry.catalog.set_unloaded("a", True),
    "load a": lambda registry: registry.catalog.set_unloaded("a", False),
    "unload e": lambda registry: registry.catalog.set_unloaded("e", True),
    "load e": lambda registry: registry.catalog.set_unloaded("e", False),
    "delete e": lambda registry: registry.catalog.delete_model("e"),
}


@cache
def objects() -> dict[str, tuple[bytes, float]]:
    """Models `a` and `b`, with `good` on their first versions and a rollout of `a`."""

    async def make() -> SteppedStore:
        store = SteppedStore()
        registry = Registry(store)
        await store.put(BLOBS + FILE.sha256, one(CONTENT))
        for spec in (member("x", "between"), member("x", "between", 32), member("x", "between")):
            await registry.push("a", spec)
        for spec in (member("between", "y"), member("between", "y", 64), member("between", "y")):
            await registry.push("b", spec)
        await registry.promote("a", 1)
        await registry.push("a", member("x", "between", datatype="INT64"))
        await registry.push("a", member("x", "between"))
        for name in ("a", "b"):
            await registry.catalog.set_alias(name, "good", 1)
        return store

    return asyncio.run(make()).objects


@pytest.fixture
def store() -> SteppedStore:
    """Prepared, for tests of one run."""
    return prepared()


def prepared() -> SteppedStore:
    """A store with these."""
    store = SteppedStore(conditional=False)
    store.objects = dict(objects())
    return store


class Looker:
    """Looks whether every ensemble can run: its steps are there, loaded if it is, and fit."""

    def __init__(self, store: SteppedStore) -> None:
        seen = SteppedStore()
        seen.objects = store.objects
        self._catalog = Catalog(seen)
        self._last: dict[str, tuple[bytes, float]] = {}

    async def look(self, store: SteppedStore) -> None:
        if store.objects == self._last:
            return
        self._last = dict(store.objects)
        models = await self._catalog.models()
        for model in models.values():
            for version in model.versions:
                if version.spec.HasField("ensemble"):
                    check_fit(version.spec, lambda step: found_in(models, step))
                    for step in version.spec.ensemble.steps:
                        assert model.unloaded or not models[step.model].unloaded, f"{step.model} of {model.name}"


async def tried(registry: Registry, name: str, refused: list[str], pushed: list[tuple[str, int]]) -> None:
    try:
        made = await WORK[name](registry)
    except Conflict:
        raise
    except HeadraceError:
        refused.append(name)
    else:
        if isinstance(made, int):
            pushed.append((name.split()[1], made))


@settings(max_examples=120, deadline=None)
@given(
    first=st.sampled_from(["", "push e of aliases", "push e of numbers", "push e of latest"]),
    unloaded=st.booleans(),
    work=st.lists(st.sampled_from(sorted(WORK)), min_size=2, max_size=4),
    turns=TURNS,
)
def test_no_ensemble_is_broken_by_changes_at_once(
    first: str, unloaded: bool, work: list[str], turns: list[tuple[int, int]]
) -> None:
    store = prepared()

    async def play() -> None:
        if first:
            await WORK[first](Registry(store))
            for name in ["e", "a"] if unloaded else []:
                await Registry(store).catalog.set_unloaded(name, True)
        refused, pushed = list[str](), list[tuple[str, int]]()
        await drive(store, [tried(Registry(store), name, refused, pushed) for name in work], turns, Looker(store).look)
        assert len(set(pushed)) == len(pushed), "a number was given twice"
        assert not any(key.startswith(CHANGES) for key in store.objects)

    asyncio.run(play())


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("push e of aliases", "move a to another datatype"),
        ("push e of numbers", "delete version of a"),
        ("push e of production", "promote a"),
        ("push e of latest", "push a that does not"),
        ("push e of numbers", "unload a"),
        ("push e of aliases", "delete alias of b"),
        ("push e of numbers", "delete b"),
    ],
)
@settings(max_examples=30, deadline=None)
@given(turns=st.lists(st.tuples(st.integers(0, 1), st.integers(1, 6)), min_size=4, max_size=20))
def test_of_two_that_exclude_each_other_one_is_refused(one: str, other: str, turns: list[tuple[int, int]]) -> None:
    store = prepared()

    async def play() -> None:
        refused = list[str]()
        await drive(
            store, [tried(Registry(store), name, refused, []) for name in (one, other)], turns, Looker(store).look
        )
        assert len(refused) == 1, refused

    asyncio.run(play())


async def test_what_a_dead_registry_was_about_to_do_holds_others_up_for_minutes_only(store: SteppedStore) -> None:
    dying, living = Registry(store), Registry(store)
    store.stepped = True
    player = store.begin(dying.catalog.set_alias("a", "good", 3))
    while not any(key.startswith(CHANGES) for key in store.objects):
        await store.step(player)
    store.stepped = False  # and never steps again
    began = store.now
    with pytest.raises(Conflict, match=r"another registry is changing the catalogue, or died .* after 5 minutes"):
        await living.catalog.set_alias("a", "good", 3)
    assert WAIT_SECONDS <= store.now - began < WAIT_SECONDS + 1
    assert len([key for key in store.objects if key.startswith(CHANGES)]) == 1
    store.now += STALE_SECONDS
    await living.catalog.set_alias("a", "good", 3)
    assert (await living.catalog.model("a")).aliases["good"] == 3
    player.cancel()
    await asyncio.gather(player, return_exceptions=True)


async def test_a_registry_that_slept_too_long_writes_nothing(store: SteppedStore) -> None:
    slow = Registry(store)
    store.stepped = True
    player = store.begin(slow.catalog.set_alias("a", "good", 3))
    while not any(key.startswith(CHANGES) for key in store.objects):
        await store.step(player)
    store.now += CHANGE_SECONDS + 1
    store.let_all_through()
    with pytest.raises(Unavailable, match="took over 60 s; try again"):
        await player
    assert (await slow.catalog.model("a")).aliases["good"] == 1


@pytest.mark.parametrize("calls", range(1, 16))
async def test_a_caller_who_leaves_in_the_middle_holds_nobody_up(store: SteppedStore, calls: int) -> None:
    """Whichever of its calls it waits for; what has begun to be written is written."""
    first, second = Registry(store), Registry(store)
    store.stepped = True
    player = store.begin(first.catalog.set_alias("a", "good", 3))
    for _ in range(calls):
        await store.step(player)
    player.cancel()
    store.let_all_through()
    await asyncio.gather(player, return_exceptions=True)
    await second.catalog.set_alias("b", "good", 3)
    await first.catalog.set_alias("b", "good", 1)
    assert not any(key.startswith(CHANGES) for key in store.objects)


async def test_a_write_that_the_store_did_not_answer_holds_others_up(store: SteppedStore) -> None:
    """It may come to pass at any time."""
    first, second = Registry(store), Registry(store)

    async def silent(*_: object, **__: object) -> None:
        raise Unavailable("no answer")

    async with first.catalog.changes.turn() as change:
        with pytest.raises(Unavailable, match="no answer"):
            await change.write(silent())
    with pytest.raises(Conflict):
        await second.catalog.set_alias("b", "good", 3)


async def test_an_alias_that_goes_there_and_back_while_it_is_read_is_what_it_is(store: SteppedStore) -> None:
    """Tags are made of contents here, and what was read in between must not be kept under the first one's."""
    reading, moving = Registry(store), Registry(store)
    store.stepped = True
    player = store.begin(reading.catalog.model("a"))
    await store.step(player)  # has listed it as it is, and not read it
    store.stepped = False
    await moving.catalog.set_alias("a", "good", 3)
    store.let_all_through()
    assert (await player).aliases["good"] == 3
    await moving.catalog.set_alias("a", "good", 1)
    assert (await reading.catalog.model("a")).aliases["good"] == 1


async def test_the_collector_removes_what_dead_changes_left(store: SteppedStore) -> None:
    await store.put(f"{CHANGES}dead", one(b"."))
    await Collector(store).collect()
    assert f"{CHANGES}dead" in store.objects
    store.now += STALE_SECONDS * 10
    await Collector(store).collect()
    assert f"{CHANGES}dead" not in store.objects


async def test_what_was_deleted_by_one_is_not_found_by_the_other(store: SteppedStore) -> None:
    first, second = Registry(store), Registry(store)
    await first.catalog.delete_version("b", 3)
    with pytest.raises(NotFound):
        await second.catalog.set_alias("b", "good", 3)
    with pytest.raises(FailedPrecondition):
        await second.catalog.delete_version("b", 1)


def test_nobody_writes_when_others_take_him_for_dead() -> None:
    """And there is time for his last call to hang in a slow store."""
    assert CHANGE_SECONDS + WAIT_SECONDS + 180 < STALE_SECONDS
