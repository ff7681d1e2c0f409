"""A lane's consumers: how much it takes and how urgently, as the model comes into memory."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from hashlib import blake2b

from headrace.v1.model_pb2 import ModelVersion
from services.common.broker.port import Broker, Consumer, Delivery
from services.common.errors import HeadraceError, NotFound, Unavailable
from services.common.queues import queue_name, queue_spec

log = logging.getLogger(__name__)

# Consumers of a loaded model are served first; work spills to those who must load it when they are saturated.
LOADED_PRIORITY = 10
RETRY_SECONDS = 0.5
# How much more is taken where there are tenants. Gateways keep floods from the queue, so this is room for those who
# send little: what is here is taken fairly, what waits in the broker is not.
ROOM = 4


def home_priority(worker_id: str, queue: str) -> int:
    """How much this worker is the one to load a model that nobody holds: 0 to 9, below LOADED_PRIORITY.

    Rendezvous hashing, with the broker as the judge: each worker says how near it is to the queue, and the nearest with
    room gets the request. So a model comes back to where its files are, and two requests for a cold model do not make
    two workers load it. (Thaler and Ravishankar, "A name-based mapping scheme for rendezvous", 1996.)
    """
    return blake2b(f"{worker_id}\0{queue}".encode(), digest_size=8).digest()[0] % LOADED_PRIORITY


class Subscription:
    """At most one consumer of each of a version's queues: callers', and what runs behind them.

    Args:
        on_delivery: called with each delivery, and whether it may wait until callers have been served.
        ahead: how many requests it takes at a time once the model is loaded.
        behind: how many of the background's, beside those.
        worker_id: decides how near this worker is to the queue while it is not.

    Attributes:
        shared: requests have tenants; takes effect with `make_room`.
    """

    def __init__(
        self,
        broker: Broker,
        version: ModelVersion,
        on_delivery: Callable[[Delivery, bool], None],
        ahead: int,
        *,
        behind: int,
        worker_id: str,
    ) -> None:
        self._broker = broker
        self._version = version
        self._queue = queue_name(version.name, version.version)
        self._home = home_priority(worker_id, self._queue)
        self._on_delivery = on_delivery
        self._prefetch = {False: max(2, ahead), True: max(2, behind)}
        self._consumers: list[Consumer] = []
        self._loaded = False
        self.shared = self._roomy = False
        self._closed = asyncio.Event()
        self._turn = asyncio.Lock()

    @property
    def is_open(self) -> bool:
        """It consumes."""
        return bool(self._consumers)

    async def open(self, *, loaded: bool) -> None:
        """Consumes: `ahead` and before others once the model is loaded, one message and after others before.

        Tries until the broker takes it, or until it is closed.
        """
        async with self._turn:
            if self._consumers and (self._loaded, self._roomy) == (loaded, self.shared):
                return
            roomy = self.shared
            while not self._closed.is_set():
                consumers: list[Consumer] = []
                try:
                    consumers.append(await self._consume(loaded=loaded, roomy=roomy, background=False))
                    consumers.append(await self._consume(loaded=loaded, roomy=roomy, background=True))
                except HeadraceError as error:
                    log.warning("cannot consume %s: %s", self._queue, error)
                    await _cancel(consumers)
                    await asyncio.sleep(RETRY_SECONDS)
                    continue
                old, self._consumers = self._consumers, consumers
                self._loaded, self._roomy = loaded, roomy
                await _cancel(old)
                if self._closed.is_set():  # while the broker was asked
                    await _cancel(consumers)
                return

    async def _consume(self, *, loaded: bool, roomy: bool, background: bool) -> Consumer:
        """Raises HeadraceError."""
        spec = queue_spec(self._version, background=background)
        await self._broker.declare(spec)
        ahead = self._prefetch[background] * (ROOM if roomy else 1)
        return await self._broker.consume(
            spec.name,
            lambda delivery: self._on_delivery(delivery, background),
            prefetch=ahead if loaded else 1,
            priority=LOADED_PRIORITY if loaded else self._home,
        )

    async def make_room(self) -> None:
        """Takes more at a time from when requests have tenants on."""
        if self.shared and not self._roomy and self._consumers:
            await self.open(loaded=self._loaded)

    async def pause(self) -> None:
        """No deliveries until it is opened again."""
        async with self._turn:
            consumers, self._consumers = self._consumers, []
            await _cancel(consumers)

    async def has_others(self) -> bool:
        """Other workers consume the queue, too."""
        try:
            return (await self._broker.depth(self._queue)).consumers > 1
        except HeadraceError:
            return False

    async def run_dry(self, patience: float) -> None:
        """Returns once nothing waits in the queues, or after `patience` seconds: nobody will consume them hereafter."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                while True:
                    if await self._is_dry():
                        return
                    await asyncio.sleep(RETRY_SECONDS)

    async def _is_dry(self) -> bool:
        for background in (False, True):
            try:
                if (await self._broker.depth(queue_spec(self._version, background=background).name)).ready:
                    return False
            except NotFound:
                continue
            except HeadraceError:  # the broker is away: it comes back with what gateways publish again
                return False
        return True

    async def close(self) -> None:
        """No more deliveries."""
        self._closed.set()
        await _cancel(self._consumers)


async def _cancel(consumers: list[Consumer]) -> None:
    for consumer in consumers:
        with contextlib.suppress(Unavailable):  # the broker is away: nothing comes from it either
            await consumer.cancel()
