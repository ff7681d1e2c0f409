"""The embedded broker's rules. Pure: time is an argument, deliveries are handed to a callable.

Queues are bounded in requests; the consumers of highest priority are served until their prefetch is full, equals in
turn; what a lost consumer had goes back to the head of its queue, marked as redelivered.
"""

from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from services.common.broker.port import Depth, Message, QueueSpec
from services.common.errors import NotFound, QueueFull


@dataclass(slots=True)
class Waiting:
    """A message in a queue."""

    message: Message
    expires: float | None
    deliveries: int = 0

    def expired(self, now: float) -> bool:
        """Nobody waits for it any more."""
        return self.expires is not None and self.expires <= now


@dataclass(slots=True, eq=False)
class CoreConsumer:
    """A subscription.

    Attributes:
        deliver: called with (delivery tag, message, redelivered).
        owner: who made it, for those who ask for the holder of a delivery.
        held: requests handed out and not settled.
    """

    queue: str
    prefetch: int
    priority: int
    deliver: Callable[[int, Message, bool], None]
    owner: object = None
    held: int = 0
    tags: set[int] = field(default_factory=set)

    def has_room(self) -> bool:
        """One message always fits, however many requests it carries."""
        return self.held < self.prefetch


@dataclass(slots=True)
class _Queue:
    spec: QueueSpec
    waiting: deque[Waiting] = field(default_factory=deque)
    ready: int = 0
    unacknowledged: int = 0
    # By descending priority; within one priority the first is next in turn.
    consumers: dict[int, deque[CoreConsumer]] = field(default_factory=dict)


class BrokerCore:
    """All queues, consumers and unsettled deliveries of one broker."""

    def __init__(self) -> None:
        self._queues: dict[str, _Queue] = {}
        self._unsettled: OrderedDict[int, tuple[CoreConsumer, Waiting]] = OrderedDict()
        self._next_tag = 1

    def declare(self, spec: QueueSpec) -> None:
        """Makes the queue, or gives an existing one the new limits."""
        queue = self._queues.setdefault(spec.name, _Queue(spec))
        queue.spec = spec

    def publish(self, name: str, message: Message, now: float) -> None:
        """Takes a message in and hands it out if somebody has room. Raises NotFound, QueueFull."""
        queue = self._queue(name)
        self._expire(queue, now)
        limit = queue.spec.max_length
        if limit is not None and queue.ready + message.count > limit:
            raise QueueFull(f"queue '{name}' holds {queue.ready} requests of at most {limit}; try again shortly")
        expires = None if message.ttl is None else now + message.ttl
        queue.waiting.append(Waiting(message, expires))
        queue.ready += message.count
        self._serve(queue, now)

    def depth(self, name: str, now: float) -> Depth:
        """Waiting and held, unexpired requests, and consumers. Raises NotFound."""
        queue = self._queue(name)
        self._expire(queue, now)
        # Those that expired behind one that has not are still in line, but nobody wants them.
        ready = sum(waiting.message.count for waiting in queue.waiting if not waiting.expired(now))
        return Depth(ready, sum(map(len, queue.consumers.values())), queue.unacknowledged)

    def consume(self, consumer: CoreConsumer, now: float) -> None:
        """Adds a subscription and serves it. Raises NotFound."""
        queue = self._queue(consumer.queue)
        queue.consumers.setdefault(consumer.priority, deque()).append(consumer)
        queue.consumers = dict(sorted(queue.consumers.items(), reverse=True))
        self._serve(queue, now)

    def cancel(self, consumer: CoreConsumer) -> None:
        """Ends deliveries; what the consumer holds can still be settled."""
        ring = self._queues[consumer.queue].consumers.get(consumer.priority)
        if ring and consumer in ring:
            ring.remove(consumer)

    def lose(self, consumer: CoreConsumer, now: float) -> None:
        """The consumer is gone with all it held."""
        self.cancel(consumer)
        queue = self._queues[consumer.queue]
        for tag in sorted(consumer.tags, reverse=True):
            if (settled := self._settle(tag)) is not None:
                self._give_back(queue, settled[1], now)
        self._serve(queue, now)

    def holder(self, tag: int) -> CoreConsumer | None:
        """Who has this delivery and has not settled it."""
        unsettled = self._unsettled.get(tag)
        return None if unsettled is None else unsettled[0]

    def ack(self, tag: int, now: float) -> None:
        """The message is done with. Unknown tags are settled already."""
        if (settled := self._settle(tag)) is not None:
            self._serve(self._queues[settled[0].queue], now)

    def requeue(self, tag: int, now: float) -> None:
        """Back to the head of its queue, unless it was delivered too often."""
        if (settled := self._settle(tag)) is None:
            return
        queue = self._queues[settled[0].queue]
        self._give_back(queue, settled[1], now)
        self._serve(queue, now)

    def reject(self, tag: int, now: float) -> None:
        """To the dead-letter queue, or away."""
        if (settled := self._settle(tag)) is None:
            return
        queue = self._queues[settled[0].queue]
        self._bury(queue, settled[1], now)
        self._serve(queue, now)

    def _settle(self, tag: int) -> tuple[CoreConsumer, Waiting] | None:
        settled = self._unsettled.pop(tag, None)
        if settled is not None:
            consumer, waiting = settled
            consumer.tags.discard(tag)
            consumer.held -= waiting.message.count
            self._queues[consumer.queue].unacknowledged -= waiting.message.count
        return settled

    def _give_back(self, queue: _Queue, waiting: Waiting, now: float) -> None:
        limit = queue.spec.delivery_limit
        if limit is not None and waiting.deliveries > limit:
            self._bury(queue, waiting, now)
        else:
            queue.waiting.appendleft(waiting)
            queue.ready += waiting.message.count

    def _bury(self, queue: _Queue, waiting: Waiting, now: float) -> None:
        grave = self._queues.get(queue.spec.dead_letter or "")
        if grave is not None:
            grave.waiting.append(Waiting(waiting.message, None))
            grave.ready += waiting.message.count
            self._serve(grave, now)

    def _serve(self, queue: _Queue, now: float) -> None:
        """Hands out from the head while somebody has room."""
        self._expire(queue, now)
        while queue.waiting and (consumer := self._next_consumer(queue)) is not None:
            waiting = queue.waiting.popleft()
            queue.ready -= waiting.message.count
            if waiting.expired(now):
                self._bury(queue, waiting, now)
                continue
            waiting.deliveries += 1
            tag, self._next_tag = self._next_tag, self._next_tag + 1
            consumer.tags.add(tag)
            consumer.held += waiting.message.count
            queue.unacknowledged += waiting.message.count
            self._unsettled[tag] = (consumer, waiting)
            consumer.deliver(tag, waiting.message, waiting.deliveries > 1)

    def _next_consumer(self, queue: _Queue) -> CoreConsumer | None:
        for ring in queue.consumers.values():
            for _ in range(len(ring)):
                consumer = ring[0]
                ring.rotate(-1)
                if consumer.has_room():
                    return consumer
        return None

    def _expire(self, queue: _Queue, now: float) -> None:
        """Buries what expired at the head; deeper ones when they get there, as in RabbitMQ."""
        while queue.waiting and queue.waiting[0].expired(now):
            expired = queue.waiting.popleft()
            queue.ready -= expired.message.count
            self._bury(queue, expired, now)

    def _queue(self, name: str) -> _Queue:
        queue = self._queues.get(name)
        if queue is None:
            raise NotFound(f"no queue '{name}'; declare it first")
        return queue
