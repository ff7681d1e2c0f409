"""A store in memory whose calls wait until a driver lets them through: for playing steps in every order."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextvars import ContextVar
from itertools import chain, count
from typing import Any

from hypothesis import strategies as st

from services.common.errors import AlreadyExists, NotFound
from services.common.objects.port import ObjectInfo
from services.registry.changes import Changes

TURNS = st.lists(st.tuples(st.integers(0, 4), st.integers(1, 12)), min_size=6, max_size=30)
# Whose call it is; tasks that a player makes are his, too.
_PLAYER: ContextVar[asyncio.Task[Any] | None] = ContextVar("player", default=None)


class SteppedStore:
    """Implements ObjectStore. Each call takes effect at once, when the driver says so. Tags are made as S3 makes them.

    Args:
        conditional: whether it honours `if_absent`.
    """

    def __init__(self, *, conditional: bool = True) -> None:
        self.conditional = conditional
        self.objects: dict[str, tuple[bytes, float]] = {}
        self.waiting: dict[asyncio.Task[Any] | None, asyncio.Future[None]] = {}
        self.stepped = False
        self.now = 1e9

    async def put(self, key: str, chunks: AsyncIterator[bytes], *, if_absent: bool = False) -> ObjectInfo:
        content = b"".join([chunk async for chunk in chunks])
        await self._turn()
        if if_absent and self.conditional and key in self.objects:
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
                yield ObjectInfo(key, len(content), hashlib.md5(content).hexdigest(), written)

    async def delete(self, key: str) -> None:
        await self._turn()
        self.objects.pop(key, None)

    async def url(self, key: str, expires: float) -> str:
        raise NotImplementedError

    def begin(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """A player: a task whose calls wait under its name."""

        async def play() -> Any:
            _PLAYER.set(asyncio.current_task())
            return await work

        return asyncio.create_task(play())

    async def step(self, player: asyncio.Task[Any]) -> bool:
        """Lets the player's call through, if he makes one."""
        await settled()
        if player not in self.waiting:
            return False
        self.waiting.pop(player).set_result(None)
        await settled()
        return True

    async def _turn(self) -> None:
        self.now += 0.001
        if self.stepped:
            self.waiting[_PLAYER.get()] = turn = asyncio.get_running_loop().create_future()
            await turn
        else:
            await asyncio.sleep(0)

    def let_all_through(self) -> None:
        """From now on nobody waits."""
        self.stepped = False
        for turn in self.waiting.values():
            if not turn.done():  # its caller may have left
                turn.set_result(None)
        self.waiting.clear()


def changes_on(store: SteppedStore) -> Changes:
    """Waits for its turn by the store's time, and by nothing but the store's calls."""
    return Changes(store, clock=lambda: store.now, pause=lambda: asyncio.sleep(0))


async def drive(
    store: SteppedStore,
    work: list[Coroutine[Any, Any, Any]],
    turns: list[tuple[int, int]],
    check: Callable[[SteppedStore], Awaitable[None]],
) -> None:
    """Runs all work to its end, one call to the store after the other.

    Args:
        turns: whose turn it is, and for how many calls; after the last of them it is everybody's, one call each, else
            a push might ask for ever while a collection stands still.
        check: looks after each call whether all is well.
    """
    store.stepped = True
    tasks = [store.begin(each) for each in work]
    everybody = ((place, 1) for _ in count() for place in range(len(tasks)))
    try:
        for drawn, calls in chain(turns, everybody):
            place = drawn % len(tasks)
            for _ in range(calls):
                if await store.step(tasks[place]):
                    await check(store)
            if all(task.done() for task in tasks):
                break
    finally:
        store.let_all_through()
        await asyncio.gather(*tasks)


async def settled() -> None:
    """Whoever can go on has done so, up to its next call."""
    for _ in range(16):
        await asyncio.sleep(0)
