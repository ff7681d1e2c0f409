"""Where requests of tenants, and of models with levels, wait: at their gateway, so that a flood is not in the queue.

Each route lets as much into the queue as keeps consumers busy, from the tenant who has had least; what a request did
cost is told by its receipt. Workers choose once more among what they have, at the last moment (`batcher.py`), so a
request of a tenant who sends little passes the flood twice: here, and at the device. Levels are an order among one
tenant's requests, or everybody's where there are no tenants: nobody passes another by calling his own urgent.
"""

from collections import deque
from collections.abc import Callable

from headrace.v1.reply_pb2 import Receipt
from services.common.fair import CREDIT, FairWindow, Shares
from services.common.levels import LevelLine
from services.gateway.dispatch.pending import Pending
from services.gateway.receipts import compute_seconds
from services.gateway.routes import Route

# For each consumer: a batch that runs and one that waits; and what each tenant may have there whatever others have: two
# as well, for what comes only when the one before is answered comes after the flood's next batch has begun.
# Engines elsewhere are given what they run: in a line of theirs the first to come would be the first.
BATCHES_AHEAD = 2
OWN_BATCHES = 2


class TenantLines:
    """Lines of all routes; requests with neither tenant nor level never come here.

    Args:
        send: takes a request whose turn it is to the queue.
        consumers: how many workers consume a route's queue.
    """

    def __init__(self, send: Callable[[Pending], None], consumers: Callable[[Route], int]) -> None:
        self._send = send
        self._consumers = consumers
        self._shares = Shares(CREDIT)
        self._windows: dict[str, FairWindow[Pending]] = {}
        # What each request under way was charged, by its id.
        self._charged: dict[int, float] = {}

    def add(self, pending: Pending) -> None:
        """One more request: it goes now or waits."""
        route = pending.route
        window = self._windows.get(route.queue)
        if window is None:
            window = FairWindow(self._shares, line=LevelLine if route.levels else deque, level=_level)
            self._windows[route.queue] = window
        window.add(pending, _whose(pending), 1.0 if pending.tenant is None else pending.tenant.weight)
        self._let_go(route, window)

    def over(self, pending: Pending, receipt: Receipt | None) -> None:
        """A request left the gateway, answered or not.

        Args:
            receipt: what it did cost; None: nobody knows.
        """
        charged = self._charged.pop(pending.id, None)
        if charged is None:
            return  # it never got its turn: it is passed over when that comes
        window = self._windows[pending.route.queue]
        cost = None if receipt is None else compute_seconds(receipt, pending.rows)
        window.over(_whose(pending), charged, cost, pending.level)
        self._let_go(pending.route, window)

    def _let_go(self, route: Route, window: FairWindow[Pending]) -> None:
        batches = batch_of(route) * max(1, self._consumers(route))
        elsewhere = route.text and route.spec_version.spec.runtime != "llm"
        ahead = batches if elsewhere else BATCHES_AHEAD * batches
        window.size, window.own = min(ahead, route.max_requests), OWN_BATCHES * batches
        while (pending := window.next()) is not None:
            if pending.answer.done():
                window.skipped(_whose(pending), pending.level)
            else:
                self._charged[pending.id] = window.cost
                self._send(pending)


def _whose(pending: Pending) -> str:
    return "" if pending.tenant is None else pending.tenant.name


def _level(pending: Pending) -> int:
    return pending.level


def batch_of(route: Route) -> int:
    """How many requests a worker of the route runs at a time."""
    spec = route.spec_version.spec
    return (spec.text.max_num_seqs or 256) if route.text else (spec.batching.max_batch_size or 1)
