"""All links of a worker, by reply address."""

import asyncio
from collections.abc import Callable

from services.worker.replies.link import Link


class Links:
    """Makes links when the first message of a gateway arrives, and forgets them when nothing is owed."""

    def __init__(self, worker_id: str, group: asyncio.TaskGroup) -> None:
        self._worker_id = worker_id
        self._group = group
        # Set by the composition root: told of requests that nobody waits for any more.
        self.on_cancelled: Callable[[str, int], None] = lambda reply_to, request_id: None
        self._links: dict[str, Link] = {}
        self._tasks: dict[Link, asyncio.Task[None]] = {}

    def to(self, reply_to: str) -> Link:
        """The link to a gateway. Raises ValueError where the address is malformed."""
        link = self._links.get(reply_to)
        if link is None:
            link = Link(
                reply_to, self._worker_id, lambda request_id: self.on_cancelled(reply_to, request_id), self._forget
            )
            self._links[reply_to] = link
            self._tasks[link] = self._group.create_task(link.run(), name=f"replies to {link.reply_to.split('/')[0]}")
        return link

    def owed(self) -> bool:
        """Some gateway has not confirmed everything."""
        return any(link.owed() for link in self._links.values())

    def close(self) -> None:
        """Ends all streams."""
        for task in self._tasks.values():
            task.cancel()

    def _forget(self, link: Link) -> None:
        self._links.pop(link.reply_to, None)
        self._tasks.pop(link, None)
