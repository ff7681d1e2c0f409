"""The law: accepted = answered + failed with a clear error, whatever process is killed under load."""

import asyncio
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from headrace import AsyncClient
from headrace.client.errors import HeadraceError
from headrace.client.registry import RegistryClient
from tests.e2e.conftest import FRONTS, ready
from tests.support import models
from tests.support.stack import RunningStack, running_stack, wait_until

CALLERS = 64
TIMEOUT_SECONDS = 30.0


@pytest.fixture(params=FRONTS)
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RunningStack]:
    """A stack with two workers and one model."""
    with running_stack(tmp_path / "data", workers=2, front=request.param) as running:
        from headrace import Client

        with RegistryClient(running.address("registry")) as registry, Client(running.address("gateway")) as client:
            registry.push("add_one", models.add_one(tmp_path / "add_one.onnx"))
            wait_until(lambda: ready(client, "add_one"), "the model")
        yield running


@dataclass(slots=True)
class Count:
    """Both sides: what was sent and what came back."""

    sent: int = 0
    right: int = 0
    wrong: int = 0
    errors: list[str] = field(default_factory=list)


async def steady_load(address: str, count: Count, stop: asyncio.Event) -> None:
    """64 callers, each sending its next request when the last is answered."""
    async with AsyncClient(address) as client, asyncio.TaskGroup() as group:

        async def caller(number: int) -> None:
            while not stop.is_set():
                value = float(number + 64 * count.sent % 10_000)
                count.sent += 1
                try:
                    result = await client.infer(
                        "add_one", {"x": np.full((1, 16), value, np.float32)}, timeout=TIMEOUT_SECONDS
                    )
                except HeadraceError as error:
                    count.errors.append(f"{error.code}: {error}")
                    continue
                right = bool((result.outputs["y"] == np.float32(value) + 1).all())
                count.right += right
                count.wrong += not right

        for number in range(CALLERS):
            group.create_task(caller(number))


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("worker-1", signal.SIGKILL),
        ("worker-1", signal.SIGTERM),
        ("broker", signal.SIGKILL),
        ("broker", signal.SIGTERM),
        ("registry", signal.SIGKILL),
    ],
)
async def test_nothing_accepted_is_lost(pair: RunningStack, name: str, number: signal.Signals) -> None:
    count, stop = Count(), asyncio.Event()

    async def answered(more: int) -> None:
        """Until `more` further requests were answered."""
        target = count.right + more
        async with asyncio.timeout(60):
            while count.right < target:  # noqa: ASYNC110  # the callers count, nobody signals
                await asyncio.sleep(0.01)

    async with asyncio.TaskGroup() as group:
        group.create_task(steady_load(pair.address("gateway"), count, stop))
        await answered(500)
        await asyncio.to_thread(pair.signal, name, number)
        await answered(1000)
        stop.set()
    assert count.sent == count.right + count.wrong + len(count.errors)
    assert count.wrong == 0
    assert count.errors == []
