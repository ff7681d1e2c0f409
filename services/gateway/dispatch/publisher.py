"""From accepted requests to broker messages: self-clocked coalescing.

What gathers while the last publish is under way goes into the next messages: one for each consumer at most, so that no
consumer idles while another holds everything. At low load each message holds one request and nothing waits.
"""

import asyncio
import time
from collections import deque
from math import ceil

from headrace.v1.work_pb2 import Envelope
from services.common.broker.port import Broker, Message
from services.common.errors import HeadraceError, NotFound, QueueFull, Unavailable
from services.common.queues import queue_spec
from services.gateway.dispatch.pending import Pending, fail
from services.gateway.routes import Route

# More requests in one message save nothing; more bytes come near RabbitMQ's limit.
MAX_REQUESTS = 64
MAX_BYTES = 4 * 1024 * 1024


class Publisher:
    """Publishes the requests of one route.

    Args:
        restored: set while the broker is there; waited for when a publish found it away.
        inline_bytes: larger bodies stay here; the worker fetches them.
        system: the broker's name in traces.
    """

    def __init__(
        self,
        broker: Broker,
        route: Route,
        reply_to: str,
        *,
        inline_bytes: int,
        restored: asyncio.Event,
        system: str,
    ) -> None:
        self._broker = broker
        self._route = route
        self._reply_to = reply_to
        self._inline_bytes = inline_bytes
        self._restored = restored
        self._system = system
        self._gathered: deque[Pending] = deque()
        self._wake = asyncio.Event()
        batch = route.spec_version.spec.batching.max_batch_size
        # Generations last: each is a message of its own, so that what one worker holds is no more than it runs.
        self._most = 1 if route.text else min(batch or MAX_REQUESTS, MAX_REQUESTS)
        self.consumers = 0

    def add(self, pending: Pending) -> None:
        """Queues a request for the next message."""
        self._gathered.append(pending)
        self._wake.set()

    async def run(self) -> None:
        """Publishes for ever."""
        declared = False
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                if not declared:
                    await self._broker.declare(queue_spec(self._route.spec_version, background=self._route.background))
                    declared = True
                while self._gathered:
                    await self._publish_round()
            except NotFound:
                declared = False
                self._wake.set()
            except Unavailable:
                await self._wait_for_broker()
                declared = False
                self._wake.set()

    async def _wait_for_broker(self) -> None:
        """Until the broker is back. What waits keeps its own deadline and fails by it."""
        self._restored.clear()
        # The event may have been set between the failure and the line above: look again each second.
        try:
            await asyncio.wait_for(self._restored.wait(), 1.0)
        except TimeoutError:
            self._restored.set()

    async def _publish_round(self) -> None:
        share = max(1, min(self._most, ceil(len(self._gathered) / max(1, self.consumers))))
        messages: list[list[Pending]] = []
        while self._gathered and len(messages) < max(1, self.consumers):
            messages.append(self._take(share))
        if len(messages) == 1:
            await self._publish(messages[0])
            return
        results = await asyncio.gather(*map(self._publish, messages), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    def _take(self, most: int) -> list[Pending]:
        """Up to `most` requests that still wait and fit into one message."""
        taken: list[Pending] = []
        size = 0
        while self._gathered and len(taken) < most:
            pending = self._gathered[0]
            inline = len(pending.body) if len(pending.body) <= self._inline_bytes else 0
            if taken and size + inline > MAX_BYTES:
                break
            self._gathered.popleft()
            if not pending.answer.done():
                taken.append(pending)
                size += inline
        return taken

    async def _publish(self, requests: list[Pending]) -> None:
        """Publishes one message; what the broker could not take for now goes back to the head of the line."""
        if not requests:
            return
        start_ns = time.time_ns()
        try:
            await self._broker.publish(self._route.queue, self._message(requests))
        except QueueFull as error:
            await self._refused(requests, error)
        except (Unavailable, NotFound):
            self._gathered.extendleft(reversed(requests))
            raise
        except HeadraceError as error:
            for pending in requests:
                fail(pending, error)
        else:
            for pending in requests:
                pending.published = True
                if pending.trace is not None:
                    pending.trace.published(
                        self._route.queue, len(requests), start_ns, time.time_ns(), system=self._system
                    )

    async def _refused(self, requests: list[Pending], error: QueueFull) -> None:
        """A message of several may fit in part: halve it. A single request is refused."""
        if len(requests) == 1:
            fail(requests[0], error)
            return
        middle = len(requests) // 2
        await self._publish(requests[:middle])
        await self._publish(requests[middle:])

    def _message(self, requests: list[Pending]) -> Message:
        envelope = Envelope()
        latest = 0
        for pending in requests:
            latest = max(latest, pending.deadline_unix_us)
            item = envelope.requests.add(
                id=pending.id,
                deadline_unix_us=pending.deadline_unix_us,
                accepted_unix_us=pending.accepted_unix_us,
                attempt=pending.attempt,
            )
            if pending.trace is not None:
                item.traceparent = pending.trace.traceparent
            if pending.level:
                item.level = pending.level
            if pending.tenant is not None:
                item.tenant, item.weight = pending.tenant.name, pending.tenant.weight
            if len(pending.body) <= self._inline_bytes:
                item.body = pending.body
            else:
                item.held_bytes = len(pending.body)
        ttl = max(0.001, latest / 1e6 - time.time())
        return Message(envelope.SerializeToString(), len(requests), self._reply_to, ttl)
