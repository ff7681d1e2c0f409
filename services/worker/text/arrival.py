"""What a request needs before it may run: its payload, and where it is suspicious, its gateway's word."""

import asyncio

from headrace.v1.reply_pb2 import Verdict
from services.worker.intake import Held


class News:
    """Wakes all who wait, each time that it is told."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def tell(self) -> None:
        """Something is new."""
        event, self._event = self._event, asyncio.Event()
        event.set()

    def next(self) -> asyncio.Event:
        """Set when something is new from now on; take it before looking at what may be new."""
        return self._event


async def payload(held: Held) -> bytes | None:
    """The request's bytes, fetched if they stayed at the gateway; None if nobody waits for it any more."""
    if held.work.WhichOneof("payload") == "held_bytes":
        return await held.link.fetch(held.work.id)
    return held.work.body


async def claimed(held: Held, news: News) -> Verdict:
    """The gateway's answer, asked for until it comes or the gateway is gone; what is not suspicious may run.

    Args:
        news: told when a link has changed.
    """
    if not held.suspicious:
        return Verdict(run=True, attempt=1)
    while not held.link.gone:
        changed = news.next()
        verdict = await held.link.claim(held.work.id)
        if verdict is not None:
            return verdict
        if not held.link.connected:
            await changed.wait()
    return Verdict()
