"""The port `Broker`: five verbs over named, bounded queues.

Two adapters stand behind it, RabbitMQ (`rabbitmq.py`) and the embedded broker (`embedded.py`);
tests/contract/test_broker.py holds both to what is written here.

A message carries one or more requests (`count`). Wherever an adapter can count requests instead of messages (depth,
length limit, prefetch) it does; RabbitMQ counts messages.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from services.common.errors import NotFound, QueueFull, Unavailable

__all__ = ["Broker", "Consumer", "Delivery", "Depth", "Message", "NotFound", "QueueFull", "QueueSpec", "Unavailable"]


@dataclass(frozen=True, slots=True)
class QueueSpec:
    """How a queue is made. Declaring one twice with the same spec is harmless.

    Attributes:
        name: the queue.
        durable_messages: messages survive a restart of the broker (RabbitMQ: a quorum queue) and deliveries are
            counted; otherwise speed comes first and the gateway's re-publishing covers a restart.
        max_length: most waiting requests (RabbitMQ: messages); a publish over it raises QueueFull. None: no limit.
        delivery_limit: how often a message is delivered again after a failed delivery, before it is dead-lettered.
            Needs `durable_messages` on RabbitMQ. None: no limit.
        dead_letter: the queue, declared too, that gets rejected, expired and over-delivered messages. None: they are
            dropped.
    """

    name: str
    durable_messages: bool = False
    max_length: int | None = None
    delivery_limit: int | None = None
    dead_letter: str | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """What is published.

    Attributes:
        body: opaque bytes.
        count: how many requests it carries.
        reply_to: where answers go; opaque to the broker.
        ttl: seconds after which a still-waiting message leaves the queue when it gets to its head; None: never.
    """

    body: bytes
    count: int = 1
    reply_to: str = ""
    ttl: float | None = None


@dataclass(frozen=True, slots=True)
class Depth:
    """What a queue holds.

    Attributes:
        ready: waiting requests (RabbitMQ: messages). Expired ones do not count, but for RabbitMQ's that wait behind
            one that has not expired: it looks at the head only.
        consumers: how many consumers are attached.
        unacknowledged: requests in consumers' hands; None where the broker does not tell (RabbitMQ's passive declare
            counts ready messages only).
    """

    ready: int
    consumers: int
    # Not compared: the same question has equal answers from brokers that tell and from those that do not.
    unacknowledged: int | None = field(default=None, compare=False)


class Delivery(Protocol):
    """One message in a consumer's hands. Exactly one of the three verbs is called, once.

    After the connection that brought the delivery is gone the verbs do nothing: the broker redelivers it anyway.
    They never block: what they say is sent in the background, in order.
    """

    @property
    def message(self) -> Message: ...
    @property
    def redelivered(self) -> bool:
        """It was handed to some consumer before."""

    def ack(self) -> None:
        """Done: forget it."""

    def requeue(self) -> None:
        """Not done: give it to somebody, near the head of the queue."""

    def reject(self) -> None:
        """Never deliver it again: to the dead-letter queue, or away."""


class Consumer(Protocol):
    """An active subscription. It survives reconnections of the broker by itself."""

    async def cancel(self) -> None:
        """Stops deliveries; those already handed out can still be acknowledged."""


class Broker(Protocol):
    """Named queues between gateways and workers. All methods raise Unavailable while the broker cannot be reached."""

    async def declare(self, spec: QueueSpec) -> None:
        """Makes the queue if it is not there; adapters declare it again after a restart that lost it."""

    async def publish(self, queue: str, message: Message) -> None:
        """Returns once the broker has taken the message.

        Raises:
            QueueFull: the queue is at its limit.
            NotFound: no such queue.
            Unavailable: the broker cannot be reached, or the connection broke before it confirmed.
        """

    async def consume(
        self, queue: str, on_delivery: Callable[[Delivery], None], *, prefetch: int, priority: int = 0
    ) -> Consumer:
        """Calls `on_delivery` on the event loop for each message.

        At most `prefetch` requests (RabbitMQ: messages) are unacknowledged at a time, but always at least one message.
        Consumers of higher `priority` are served until their prefetch is full, then lower ones.
        """

    async def depth(self, queue: str) -> Depth:
        """Raises NotFound where there is no such queue."""

    async def close(self) -> None:
        """Cancels consumers and disconnects; unacknowledged deliveries go back to their queues."""
