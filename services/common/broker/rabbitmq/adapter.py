"""The connection to RabbitMQ: kept up for ever, with queues and consumers restored on each new one."""

import asyncio
import itertools
import logging
import math
import ssl
from collections.abc import Callable
from contextlib import suppress

import aio_pika
from aiormq import spec
from aiormq.abc import AbstractConnection
from aiormq.channel import Channel
from aiormq.exceptions import DeliveryError, PublishError
from yarl import URL

from services.common.broker.port import Consumer, Delivery, Depth, Message, QueueSpec
from services.common.broker.rabbitmq import topology
from services.common.broker.rabbitmq.consumer import RETRY_SECONDS, RabbitConsumer
from services.common.broker.rabbitmq.faults import translated
from services.common.errors import FailedPrecondition, InvalidArgument, NotFound, QueueFull, TooLarge, Unavailable
from services.common.tls import Tls

log = logging.getLogger(__name__)

CONNECT_SECONDS = 10.0
# Without it a silent partition would go unnoticed for minutes.
HEARTBEAT_SECONDS = 5
# RabbitMQ 4 refuses larger ones by closing the channel, with everything that is under way on it.
MAX_BODY_BYTES = 16 * 1024 * 1024
# RabbitMQ closes the channel over a longer expiration. Nobody waits for so long (49 days).
MAX_EXPIRATION_MS = 2**32 - 1


class RabbitBroker:
    """One connection for life; a task keeps it up."""

    def __init__(self, url: str, name: str, on_restored: Callable[[], None] | None, tls: Tls | None = None) -> None:
        self._tls = tls
        self._url = URL(url)
        if "heartbeat" not in self._url.query:
            self._url = self._url.update_query(heartbeat=HEARTBEAT_SECONDS)
        self._name = name
        self._on_restored = on_restored
        self._up = asyncio.Event()
        self._was_up = False
        self._report = True
        self._connection: AbstractConnection | None = None
        self._publishing: Channel | None = None
        self._opening = asyncio.Lock()
        self._message_ids = itertools.count(1)
        self._specs: dict[str, QueueSpec] = {}
        self._consumers: list[RabbitConsumer] = []
        self._tasks: asyncio.TaskGroup | None = None
        self._runner: asyncio.Task[None] | None = None
        self._failure = "no attempt ended"

    @property
    def connected(self) -> bool:
        """The connection lives and its consumers were restored."""
        return self._up.is_set()

    async def start(self, patience: float) -> None:
        """Connects. Raises Unavailable after `patience` seconds without success."""
        # It logs an error for each refused connection; we try three times a second and say so once.
        logging.getLogger("aiormq.connection").setLevel(logging.CRITICAL)
        self._runner = asyncio.create_task(self._run(), name="rabbitmq connection")
        try:
            await asyncio.wait_for(self._up.wait(), patience)
        except TimeoutError as error:
            await self.close()
            raise Unavailable(
                f"no RabbitMQ at {self._where()} within {patience:.0f} s ({self._failure}); is it started, and are"
                " user, password and virtual host right?"
            ) from error

    async def declare(self, spec: QueueSpec) -> None:
        """Makes the queue, and again before each restored consumer.

        Raises InvalidArgument for a delivery limit without durable messages, FailedPrecondition where the queue exists
        with other limits.
        """
        if spec.delivery_limit is not None and not spec.durable_messages:
            raise InvalidArgument(f"queue '{spec.name}': RabbitMQ counts deliveries of durable messages only")
        connection = self._alive()
        await topology.declare(connection, spec)
        self._specs[spec.name] = spec

    async def publish(self, queue: str, message: Message) -> None:
        """Returns once RabbitMQ confirms."""
        if len(message.body) > MAX_BODY_BYTES:
            raise TooLarge(f"a message of {len(message.body)} bytes; RabbitMQ takes {MAX_BODY_BYTES} at most")
        known = self._specs.get(queue)
        properties = spec.Basic.Properties(
            delivery_mode=2 if known is not None and known.durable_messages else 1,
            message_id=str(next(self._message_ids)),
            reply_to=message.reply_to or None,
            headers={"count": message.count} if message.count != 1 else None,
            expiration=None if message.ttl is None else str(_milliseconds(message.ttl)),
        )
        channel = await self._publisher()
        try:
            with translated(f"publish to '{queue}'"):
                await channel.basic_publish(
                    message.body, routing_key=queue, properties=properties, mandatory=True, wait=False
                )
        except PublishError as error:
            raise NotFound(f"no queue '{queue}'; declare it first") from error
        except DeliveryError as error:
            raise QueueFull(f"queue '{queue}' is at its limit; try again shortly") from error

    async def consume(
        self, queue: str, on_delivery: Callable[[Delivery], None], *, prefetch: int, priority: int = 0
    ) -> Consumer:
        """Subscribes, and again after each reconnection."""
        connection, tasks = self._alive(), self._tasks
        assert tasks is not None  # there is one while we are connected

        async def prepare(connection: AbstractConnection) -> None:
            """Declares a queue of ours again; one that others declared is theirs to restore."""
            if (known := self._specs.get(queue)) is not None:
                await topology.declare(connection, known)

        consumer = RabbitConsumer(queue, on_delivery, max(1, prefetch), priority, prepare, self._forget)
        self._consumers.append(consumer)
        try:
            tasks.create_task(consumer.run(connection))
            await asyncio.wait({consumer.attempt, connection.closing}, return_when=asyncio.FIRST_COMPLETED)
            if not consumer.attempt.done():
                consumer.attempt.set_exception(Unavailable(f"the connection to RabbitMQ at {self._where()} broke"))
            consumer.attempt.result()
        except BaseException:
            consumer.abandon()
            raise
        return consumer

    async def depth(self, queue: str) -> Depth:
        """What waits, in messages."""
        return await topology.depth(self._alive(), queue)

    async def close(self) -> None:
        """Settles what was said, then disconnects."""
        if self._runner is not None:
            self._runner.cancel()
            await asyncio.wait({self._runner})

    def _forget(self, consumer: RabbitConsumer) -> None:
        """Restores it no more."""
        with suppress(ValueError):
            self._consumers.remove(consumer)

    async def _run(self) -> None:
        """Keeps a connection up for ever."""
        while True:
            try:
                await self._live(restoring=self._was_up)
            except* Exception as errors:
                self._failure = "; ".join(map(repr, errors.exceptions))
                level, self._report = logging.WARNING if self._report else logging.DEBUG, False
                log.log(level, "RabbitMQ at %s: %s; trying until it is back", self._where(), self._failure)
            await asyncio.sleep(RETRY_SECONDS)

    async def _live(self, *, restoring: bool) -> None:
        """One connection: queues and consumers restored, then served until it breaks."""
        outer = await aio_pika.connect(
            self._url,
            client_properties={"connection_name": self._name},
            timeout=CONNECT_SECONDS,
            ssl_context=self._ssl_context(),
        )
        try:
            assert outer.transport is not None  # as connect() returned
            self._connection = connection = outer.transport.connection
            async with asyncio.TaskGroup() as self._tasks:
                await self._restore(connection, self._tasks)
                self._up.set()
                self._was_up = self._report = True
                if restoring and self._on_restored is not None:
                    self._on_restored()
                await asyncio.wait({connection.closing})
                raise ConnectionError("the connection broke")
        finally:
            self._up.clear()
            self._connection = self._tasks = self._publishing = None
            with suppress(Exception):
                async with asyncio.timeout(topology.CLOSE_SECONDS):
                    await outer.close()

    async def _restore(self, connection: AbstractConnection, tasks: asyncio.TaskGroup) -> None:
        for known in self._specs.values():
            try:
                await topology.declare(connection, known)
            except (FailedPrecondition, NotFound) as error:
                log.warning("queue '%s' is not restored: %s", known.name, error)
        for consumer in self._consumers:
            consumer.attempt = asyncio.get_running_loop().create_future()
            tasks.create_task(consumer.run(connection))
        closing = connection.closing
        for consumer in list(self._consumers):
            await asyncio.wait({consumer.attempt, closing}, return_when=asyncio.FIRST_COMPLETED)

    async def _publisher(self) -> Channel:
        """The channel of all publishes; a new one if the broker closed it over a fault."""
        if (current := self._publishing) is not None and not current.is_closed:
            return current
        async with self._opening:
            if (current := self._publishing) is not None and not current.is_closed:
                return current
            with translated("opening a channel"):
                channel = await self._alive().channel(publisher_confirms=True, on_return_raises=True)
            assert isinstance(channel, Channel)  # which can publish without waiting for the socket
            self._publishing = channel
            return channel

    def _alive(self) -> AbstractConnection:
        if self._connection is None or not self._up.is_set():
            raise Unavailable(f"RabbitMQ at {self._where()} is away; it is retried all the time")
        return self._connection

    def _ssl_context(self) -> ssl.SSLContext | None:
        """With the certificates of now; None: what the URL says, or the system's issuers."""
        if self._tls is None or not self._tls.dials or self._url.scheme != "amqps":
            return None
        return self._tls.now.client_context()

    def _where(self) -> str:
        return f"{self._url.host}:{self._url.port}"


def _milliseconds(seconds: float) -> int:
    return min(MAX_EXPIRATION_MS, max(1, math.ceil(seconds * 1000)))
