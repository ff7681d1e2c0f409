"""The backend of a cluster: admits requests, sends them through the queue and waits for the workers' replies."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from headrace.v1.reply_pb2 import Receipt
from services.common.broker.port import Broker, Depth
from services.common.errors import DeadlineExceeded, NotFound, QueueFull, Unavailable
from services.gateway.backend import Answer, Events, TextEnd, Work
from services.gateway.deadlines import Deadlines
from services.gateway.dispatch.links import ReplyChannel
from services.gateway.dispatch.pending import Pending, PendingTable, fail
from services.gateway.dispatch.publisher import Publisher
from services.gateway.dispatch.tenant_lines import TenantLines
from services.gateway.dispatch.text_stream import TextStream
from services.gateway.quotas import Quotas
from services.gateway.routes import Route

CONSUMER_REFRESH_SECONDS = 1.0


class QueueBackend:
    """Implements `Backend` over a Broker and the reply channel.

    Args:
        restored: set by the broker adapter's `on_restored`, cleared by publishers that find it away.
        on_republished: called for each request that is published again.
        system: the broker's name in traces.
    """

    def __init__(
        self,
        broker: Broker,
        pending: PendingTable,
        channel: ReplyChannel,
        *,
        reply_to: str,
        inline_bytes: int,
        restored: asyncio.Event,
        on_republished: Callable[[Route], None],
        system: str,
    ) -> None:
        self._broker = broker
        self._pending = pending
        self._channel = channel
        self._reply_to = reply_to
        self._inline_bytes = inline_bytes
        self._restored = restored
        self._on_republished = on_republished
        self._system = system
        self._quotas = Quotas()
        self._lines = TenantLines(lambda pending: self._publisher(pending.route).add(pending), self._consumers)
        self._ids = itertools.count(1)
        self._deadlines: Deadlines[Pending] = Deadlines(self._expire)
        self._publishers: dict[str, Publisher] = {}
        # Set when a request was admitted whose queue nobody consumes, as far as this gateway knows.
        self.unserved = asyncio.Event()
        self._group: asyncio.TaskGroup | None = None
        self._tasks: list[asyncio.Task[None]] = []

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Owns the publishers' tasks."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            self._tasks.append(group.create_task(self._refresh_consumers(), name="consumer counts"))
            try:
                yield
            finally:
                self._group = None
                for task in self._tasks:
                    task.cancel()

    async def infer(self, work: Work) -> Answer:
        """Sends one request through the queue.

        Raises:
            QueueFull, DeadlineExceeded, Unavailable, ModelFailed, PoisonedRequest
        """
        pending = self._admit(work)
        receipt: Receipt | None = None
        try:
            self._send(pending)
            reply = await pending.answer
            receipt = reply.receipt
            return Answer(reply.body, receipt)
        finally:
            self._let_go(pending, receipt)

    async def generate(self, work: Work) -> Events:
        """Sends one generation through the queue; its pieces come as workers send them, from one worker or several.

        Raises:
            QueueFull, DeadlineExceeded, Unavailable, ModelFailed, PoisonedRequest, InvalidArgument
        """
        stream = TextStream(work.rows)
        pending = self._admit(work, stream)
        receipt: Receipt | None = None
        try:
            self._send(pending)
            async for chunk in stream.chunks(pending.answer):
                yield chunk
            receipt = pending.answer.result().receipt
            yield TextEnd(stream.usage, receipt)
        finally:
            self._let_go(pending, receipt)
            self._channel.over(pending.id)

    def _send(self, pending: Pending) -> None:
        """To the queue; a tenant's, or one with a level, when it is its turn."""
        if pending.tenant is None and not pending.level:
            self._publisher(pending.route).add(pending)
        else:
            self._lines.add(pending)

    def _admit(self, work: Work, stream: TextStream | None = None) -> Pending:
        """The request as it waits for its answer, and what fails it at its deadline. Raises QueueFull."""
        if work.tenant is None:
            return self._accept(work, stream)
        self._quotas.begin(work.tenant, asyncio.get_running_loop().time())
        try:
            return self._accept(work, stream)
        except QueueFull:
            self._quotas.end(work.tenant)
            raise

    def _accept(self, work: Work, stream: TextStream | None) -> Pending:
        """Within the model's own limits. Raises QueueFull."""
        loop = asyncio.get_running_loop()
        route = work.route
        if route.rate is not None and (seconds := route.rate.take(loop.time(), leave=_reserve(route))):
            raise QueueFull(
                f"model '{route.name}' takes {route.rate.rate:g} requests a second at this gateway; try again in"
                f" {seconds:.2g} s, or raise queue.requests_per_second in its model.yaml",
                retry_after=seconds,
            )
        now_us = time.time_ns() // 1000
        pending = Pending(
            id=next(self._ids),
            route=work.route,
            body=work.body,
            accepted_unix_us=now_us,
            deadline_unix_us=now_us + int(work.timeout * 1e6),
            trace=work.trace,
            tenant=work.tenant,
            answer=loop.create_future(),
            deadline=loop.time() + work.timeout,
            stream=stream,
            rows=work.rows,
            level=work.level,
        )
        self._pending.admit(pending)
        if not self._consumers(work.route):
            self.unserved.set()
        self._deadlines.add(pending, pending.deadline)
        return pending

    def _let_go(self, pending: Pending, receipt: Receipt | None) -> None:
        """It leaves the table; a worker that may have it is told, unless it has answered: then there is a receipt."""
        self._deadlines.remove(pending, pending.deadline)
        self._pending.forget(pending)
        if pending.tenant is not None:
            self._quotas.end(pending.tenant)
        if pending.tenant is not None or pending.level:
            self._lines.over(pending, receipt)
        if receipt is not None:
            return
        if not pending.answer.done():
            pending.answer.cancel()
        elif not pending.answer.cancelled():
            pending.answer.exception()  # a caller that left first does not ask for it
        if pending.published:
            self._channel.cancel(pending.id)

    def broker_restored(self) -> None:
        """The broker is back: whatever it may have lost is published again; workers claim before they run it."""
        for pending in self._pending.unanswered():
            if pending.published:
                pending.attempt += 1
                # Redelivered because the connection broke, not because a worker died.
                pending.claims = 0
                pending.published = False
                self._on_republished(pending.route)
                self._publisher(pending.route).add(pending)
        self._restored.set()

    def ready(self) -> bool:
        """The broker is connected."""
        return bool(getattr(self._broker, "connected", True))

    async def model_ready(self, route: Route) -> bool:
        """Some worker consumes the version's queue."""
        try:
            return (await self.depth(route)).consumers > 0
        except Unavailable:
            return False

    async def depth(self, route: Route) -> Depth:
        """What waits in the broker for this version. Raises Unavailable."""
        try:
            return await self._broker.depth(route.queue)
        except NotFound:
            return Depth(ready=0, consumers=0)

    def in_flight(self, route: Route) -> int:
        """Accepted here and not yet answered, in the background too."""
        behind = self._pending.count(route.behind.queue) if route.behind is not None else 0
        return self._pending.count(route.queue) + behind

    def _consumers(self, route: Route) -> int:
        publisher = self._publishers.get(route.queue)
        return publisher.consumers if publisher is not None else 0

    def _publisher(self, route: Route) -> Publisher:
        publisher = self._publishers.get(route.queue)
        if publisher is None:
            if self._group is None:
                raise Unavailable("the gateway is starting or stopping; try again")
            publisher = Publisher(
                self._broker,
                route,
                self._reply_to,
                inline_bytes=self._inline_bytes,
                restored=self._restored,
                system=self._system,
            )
            self._publishers[route.queue] = publisher
            self._tasks.append(self._group.create_task(publisher.run(), name=f"publisher of {route.queue}"))
        return publisher

    def _expire(self, pending: Pending) -> None:
        timeout = (pending.deadline_unix_us - pending.accepted_unix_us) / 1e6
        state = "waited or ran" if pending.published else "could not be queued (the broker is away)"
        fail(
            pending, DeadlineExceeded(f"no answer within {timeout:.3g} s: the request {state} when its deadline passed")
        )

    async def _refresh_consumers(self) -> None:
        """How many messages to spread over; a stale figure only costs balance."""
        while True:
            await asyncio.sleep(CONSUMER_REFRESH_SECONDS)
            for queue, publisher in list(self._publishers.items()):
                try:
                    publisher.consumers = (await self._broker.depth(queue)).consumers
                except (Unavailable, NotFound):
                    continue


def _reserve(route: Route) -> float:
    """What requests that let others go first leave of the burst: half of what is beyond their own."""
    return (route.rate.burst - 1) / 2 if route.background and route.rate is not None else 0.0
