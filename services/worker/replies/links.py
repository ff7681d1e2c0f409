"""All links of a worker, by reply address."""

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Callable
from functools import partial

from headrace.v1.reply_pb2 import WorkerHello
from services.common.tls import Tls
from services.worker.replies.link import Link

# More than can wait in the queues of one worker's models; a forgotten one costs a run in vain, no more.
REMEMBERED_CANCELLATIONS = 10_000


class Links:
    """Makes links when the first message of a gateway arrives, and forgets them when they are gone."""

    def __init__(self, worker_id: str, group: asyncio.TaskGroup, tls: Tls | None = None) -> None:
        self._tls = tls
        self._worker_id = worker_id
        self._incarnation = secrets.token_hex(4)
        self._group = group
        # Set by the composition root: told of requests that nobody waits for any more, and of links that came or went.
        self.on_cancelled: Callable[[str, int], None] = lambda reply_to, request_id: None
        self.on_change: Callable[[Link], None] = lambda link: None
        self._links: dict[str, Link] = {}
        self._cancelled: OrderedDict[tuple[str, int], None] = OrderedDict()
        self._tasks: dict[Link, asyncio.Task[None]] = {}

    def to(self, reply_to: str) -> Link:
        """The link to a gateway. Raises ValueError where the address is malformed."""
        link = self._links.get(reply_to)
        if link is None:
            hello = WorkerHello(worker_id=self._worker_id, incarnation=self._incarnation)
            cancelled = partial(self._note_cancelled, reply_to)
            link = Link(reply_to, hello, cancelled, self._changed, self._tls)
            self._links[reply_to] = link
            self._tasks[link] = self._group.create_task(link.run(), name=f"replies to {link.reply_to.split('/')[0]}")
        return link

    def is_cancelled(self, reply_to: str, request_id: int) -> bool:
        """The caller left before the request came here: cancellations overtake what waits in the queue."""
        return (reply_to, request_id) in self._cancelled

    def close(self) -> None:
        """Ends all streams."""
        for task in self._tasks.values():
            task.cancel()

    def _note_cancelled(self, reply_to: str, request_id: int) -> None:
        self._cancelled[reply_to, request_id] = None
        if len(self._cancelled) > REMEMBERED_CANCELLATIONS:
            self._cancelled.popitem(last=False)
        self.on_cancelled(reply_to, request_id)

    def _changed(self, link: Link) -> None:
        if link.gone:
            self._links.pop(link.reply_to, None)
            self._tasks.pop(link, None)
        self.on_change(link)
