"""What the console shows, once a second, as server-sent events."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

PERIOD_SECONDS = 1.0
# A look at many models takes a while: no more than this share of the time goes into looking.
MOST_OF_THE_TIME = 0.1
# Latencies are those of so many seconds: long enough for percentiles, short enough to see them move.
WINDOW_SECONDS = 5.0


class Live:
    """Looks once a second while somebody watches, however many do.

    Args:
        look: the parts of a picture, as JSON has them: `picture.py` says what a gateway's has.
    """

    def __init__(self, look: Callable[[], Awaitable[dict[str, Any]]]) -> None:
        self._look = look
        self._looking = asyncio.Lock()
        self._due = 0.0
        self._latest = b""
        self._closed = False

    async def events(self) -> AsyncGenerator[bytes, None]:
        """The picture now, then again and again, until `close`: `data: {"unix_ms", "window_seconds", …}`."""
        loop = asyncio.get_running_loop()
        while True:
            async with self._looking:
                if self._closed:
                    return
                began = loop.time()
                if began >= self._due:
                    self._latest = await self._event()
                    self._due = began + max(PERIOD_SECONDS, (loop.time() - began) / MOST_OF_THE_TIME)
            yield self._latest
            await asyncio.sleep(self._due - loop.time())

    async def close(self) -> None:
        """Returns once nobody looks any more: what is looked at may then be closed, too."""
        async with self._looking:
            self._closed = True

    async def _event(self) -> bytes:
        parts = await self._look()
        picture = {"unix_ms": time.time_ns() // 1_000_000, "window_seconds": WINDOW_SECONDS, **parts}
        return b"data: " + json.dumps(picture, separators=(",", ":")).encode() + b"\n\n"
