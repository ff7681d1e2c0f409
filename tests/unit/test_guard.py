"""When a process that holds too much ends itself."""

import asyncio
from collections.abc import Iterator
from itertools import chain, repeat

import pytest

from services.worker import guard
from services.worker.guard import SLACK_BYTES, memory_limit


def test_the_limit_follows_from_the_budget_unless_it_is_set() -> None:
    assert memory_limit(0, 0, 100) == 0
    assert memory_limit(7, 1000, 100) == 7
    assert memory_limit(0, 1000, 100) == 1600 + SLACK_BYTES


@pytest.mark.parametrize(
    ("sizes", "ends"),
    [
        pytest.param([50, 99, 101, 90], False, id="what can be given back is"),
        pytest.param([50, 101, 101], True, id="a leak cannot"),
    ],
)
async def test_it_ends_only_what_cannot_give_memory_back(
    sizes: list[int], ends: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "LOOK_SECONDS", 0)
    seen, drained, stop = 0, asyncio.Event(), asyncio.Event()
    later: Iterator[int] = chain(sizes, repeat(sizes[-1]))

    def resident() -> int:
        nonlocal seen
        seen += 1
        if seen > len(sizes) + 3:
            drained.set()
        return next(later)

    task = asyncio.create_task(guard.guard(100, resident, lambda: None, stop))
    await asyncio.wait_for(
        asyncio.wait([asyncio.ensure_future(drained.wait()), task], return_when=asyncio.FIRST_COMPLETED), 10
    )
    assert stop.is_set() is ends
    stop.set()
    await asyncio.wait_for(task, 10)
    drained.set()
