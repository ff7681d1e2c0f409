"""Where signals come in: the fleet's watch and the broker's depths."""

import asyncio
import logging
import time
from math import inf

import grpc
from grpc import aio

from headrace.v1.fleet_pb2 import WatchFleetRequest, WatchFleetResponse
from headrace.v1.fleet_pb2_grpc import FleetServiceStub
from services.autoscaler.signals.views import QueueDepth, QueueKey
from services.common.broker.port import Broker
from services.common.errors import NotFound, Unavailable
from services.common.queues import queue_name

log = logging.getLogger(__name__)

RETRY_SECONDS = 0.5
DEPTH_SECONDS = 3.0


class FleetWatch:
    """The latest report of the fleet.

    Attributes:
        news: set when something waits and no worker is there: a decision must not wait for the next tick.
    """

    def __init__(self, channel: aio.Channel) -> None:
        self._stub = FleetServiceStub(channel)
        self._at = -inf
        self.latest: WatchFleetResponse | None = None
        self.news = asyncio.Event()

    def age(self, now: float) -> float:
        """Seconds since the latest report."""
        return now - self._at

    async def run(self) -> None:
        """Watches for ever; what was heard last ages while the registry is away."""
        while True:
            try:
                async for response in self._stub.WatchFleet(WatchFleetRequest(), wait_for_ready=True):
                    self.latest, self._at = response, time.monotonic()
                    if not response.workers and any(
                        queue.in_flight for seen in response.gateways for queue in seen.gateway.queues
                    ):
                        self.news.set()
            except grpc.RpcError as error:
                log.warning("the fleet cannot be watched, trying on: %s", error)
            await asyncio.sleep(RETRY_SECONDS)

    def queues(self) -> list[QueueKey]:
        """Every version that a gateway was asked for or that a worker holds."""
        latest = self.latest or WatchFleetResponse()
        asked = {QueueKey(queue.name, queue.version) for seen in latest.gateways for queue in seen.gateway.queues}
        held = {QueueKey(model.name, model.version) for seen in latest.workers for model in seen.worker.models}
        return sorted(asked | held, key=str)


async def depths(broker: Broker, keys: list[QueueKey]) -> dict[QueueKey, QueueDepth] | None:
    """What the broker says of these queues; None: it does not answer."""

    async def depth(key: QueueKey) -> QueueDepth:
        try:
            found = await broker.depth(queue_name(key.name, key.version))
        except NotFound:
            return QueueDepth(0, 0)
        return QueueDepth(found.ready, found.unacknowledged)

    try:
        async with asyncio.timeout(DEPTH_SECONDS):
            return dict(zip(keys, await asyncio.gather(*map(depth, keys)), strict=True))
    except (Unavailable, TimeoutError):
        return None
