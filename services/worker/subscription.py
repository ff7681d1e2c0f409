"""A lane's consumer: how much it takes and how urgently, as the model comes into memory."""

import asyncio
import contextlib
import logging
from collections.abc import Callable

from headrace.v1.model_pb2 import ModelVersion
from services.common.broker.port import Broker, Consumer, Delivery
from services.common.errors import HeadraceError, Unavailable
from services.common.queues import queue_name, queue_spec

log = logging.getLogger(__name__)

# Consumers of a loaded model are served first; work spills to those who must load it when they are saturated.
LOADED_PRIORITY = 10
RETRY_SECONDS = 0.5


class Subscription:
    """At most one consumer of a version's queue.

    Args:
        ahead: how many requests it takes at a time once the model is loaded.
    """

    def __init__(
        self, broker: Broker, version: ModelVersion, on_delivery: Callable[[Delivery], None], ahead: int
    ) -> None:
        self._broker = broker
        self._version = version
        self._queue = queue_name(version.name, version.version)
        self._on_delivery = on_delivery
        self._ahead = max(2, ahead)
        self._consumer: Consumer | None = None
        self._closed = asyncio.Event()

    async def open(self, *, loaded: bool) -> None:
        """Consumes: `ahead` and before others once the model is loaded, one message and after others before.

        Tries until the broker takes it, or until it is closed.
        """
        prefetch = self._ahead if loaded else 1
        while not self._closed.is_set():
            try:
                await self._broker.declare(queue_spec(self._version))
                consumer = await self._broker.consume(
                    self._queue, self._on_delivery, prefetch=prefetch, priority=LOADED_PRIORITY if loaded else 0
                )
            except HeadraceError as error:
                log.warning("cannot consume %s: %s", self._queue, error)
                await asyncio.sleep(RETRY_SECONDS)
                continue
            old, self._consumer = self._consumer, consumer
            if old is not None:
                await _cancel(old)
            if self._closed.is_set():  # while the broker was asked
                await _cancel(consumer)
            return

    async def close(self) -> None:
        """No more deliveries."""
        self._closed.set()
        if self._consumer is not None:
            await _cancel(self._consumer)


async def _cancel(consumer: Consumer) -> None:
    with contextlib.suppress(Unavailable):  # the broker is away: nothing comes from it either
        await consumer.cancel()
