"""Several executions at a time: never more than there are, none idle while there is work, and none left behind."""

import asyncio
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.packages import PackageError, read_package
from headrace.v1.model_pb2 import ModelVersion
from services.gateway.protocol.metadata import model_config
from services.gateway.routes import Routes, route_of
from services.worker.instances import several


class Bench:
    """Batches by number; each runs until it is released."""

    def __init__(self, waiting: int) -> None:
        self.waiting = list(range(1, waiting + 1))
        self.running: dict[int, asyncio.Event] = {}
        self.done: list[int] = []
        self.most = 0
        self.news = asyncio.Event()

    def take(self) -> int | None:
        return self.waiting.pop(0) if self.waiting else None

    async def run(self, number: int) -> None:
        event = self.running[number] = asyncio.Event()
        self.most = max(self.most, len(self.running))
        await event.wait()
        del self.running[number]
        self.done.append(number)


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@given(st.integers(1, 5), st.integers(0, 12), st.integers(0, 2**16))
async def test_all_run_and_never_too_many_at_a_time(most: int, waiting: int, seed: int) -> None:
    bench, random = Bench(waiting), Random(seed)
    turn = asyncio.create_task(several(most, 0, bench.take, bench.run, bench.news))
    while not turn.done():
        await settle()
        assert len(bench.running) == min(most, 1 + waiting - len(bench.done))
        if bench.running:
            bench.running[random.choice(sorted(bench.running))].set()
        await settle()
    assert sorted(bench.done) == list(range(waiting + 1))
    assert bench.most <= most


async def test_what_comes_while_one_runs_is_begun_at_once() -> None:
    bench = Bench(0)
    turn = asyncio.create_task(several(2, 0, bench.take, bench.run, bench.news))
    await settle()
    bench.waiting.append(7)
    bench.news.set()
    await settle()
    assert set(bench.running) == {0, 7}
    for event in bench.running.values():
        event.set()
    await turn
    assert sorted(bench.done) == [0, 7]


async def test_one_that_raises_ends_the_turn() -> None:
    async def fails(number: int) -> None:
        raise ValueError(number)

    with pytest.raises(ExceptionGroup):
        await several(2, 0, lambda: None, fails, asyncio.Event())


def test_a_package_says_how_many_and_triton_is_told(tmp_path: Path) -> None:
    (tmp_path / "model.yaml").write_text("runtime: identity\ninstances: 3\n")
    route = route_of(ModelVersion(name="m", version=1, spec=read_package(tmp_path).spec))
    assert [group.count for group in model_config(route, Routes().resolve).instance_group] == [3]


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        (
            "runtime: ensemble\ninstances: 2\nsteps: [{model: m}]\n",
            r"line 2, instances: runtime ensemble runs one batch",
        ),
        ("runtime: identity\ninstances: 0\n", r"line 2, instances: "),
        ("runtime: identity\ninstances: 65\n", r"line 2, instances: "),
    ],
)
def test_what_cannot_run_several_is_refused(tmp_path: Path, manifest: str, message: str) -> None:
    (tmp_path / "model.yaml").write_text(manifest)
    with pytest.raises(PackageError, match=message):
        read_package(tmp_path)
