"""Whose turn it is on the device."""

import asyncio
from contextlib import AsyncExitStack

from services.worker.turns import Turns


class Crowd:
    """Lanes in line, and the order in which they got their turn."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.urgent: dict[str, bool] = {}
        self.order = ""

    async def take(self, name: str) -> None:
        async with self.turns.mine(lambda: self.urgent[name]):
            self.order += name
            await asyncio.sleep(0)

    def line_up(self, **urgent: bool) -> list[asyncio.Task[None]]:
        self.urgent = urgent
        return [asyncio.create_task(self.take(name)) for name in urgent]


async def test_the_urgent_go_first_by_what_they_are_when_it_becomes_free() -> None:
    turns = Turns()
    crowd = Crowd(turns)
    async with AsyncExitStack() as held:
        await held.enter_async_context(turns.mine())
        tasks = crowd.line_up(a=False, b=True, c=False, d=True)
        await asyncio.sleep(0)
        crowd.urgent |= {"b": False, "c": True}  # while they stand in line
    await asyncio.gather(*tasks)
    assert crowd.order == "cdab"


async def test_whoever_leaves_the_line_takes_no_turn_with_him() -> None:
    turns = Turns()
    crowd = Crowd(turns)
    async with AsyncExitStack() as held:
        await held.enter_async_context(turns.mine())
        first, second, third = crowd.line_up(a=True, b=True, c=True)
        await asyncio.sleep(0)
        second.cancel()
    first.cancel()  # it has just been given the turn
    await asyncio.gather(first, second, third, return_exceptions=True)
    assert crowd.order == "c"
    async with asyncio.timeout(5), turns.mine():
        crowd.order += "!"
    assert crowd.order == "c!"
