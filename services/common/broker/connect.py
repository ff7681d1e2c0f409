"""From a URL to a connected broker: the one place that knows the adapters."""

from collections.abc import Callable
from urllib.parse import urlsplit

from services.common.broker.embedded.client import EmbeddedBroker, dialled
from services.common.broker.port import Broker
from services.common.errors import InvalidArgument
from services.common.tls import Tls

PATIENCE_SECONDS = 30.0


def messaging_system(url: str) -> str:
    """What traces call the broker behind this URL."""
    return "rabbitmq" if urlsplit(url).scheme in ("amqp", "amqps") else "headrace"


async def connect(
    url: str, *, name: str, on_restored: Callable[[], None] | None = None, tls: Tls | None = None
) -> Broker:
    """Connects, and stays connected for ever: queues and consumers are restored after each break.

    Args:
        url: `embedded://[token@]host:port`, or RabbitMQ's `amqp://user:password@host:port/vhost` (`amqps` for TLS).
        name: who connects, as the broker's operators see it.
        on_restored: called on the event loop after each re-connection, once consumers are back.
        tls: for the embedded broker and for amqps, which without it believes the system's issuers.

    Raises:
        InvalidArgument: the URL is not one.
        Unavailable: no broker answers within 30 seconds.
    """
    parts = urlsplit(url)
    scheme = parts.scheme
    if scheme == "embedded":
        token, _, address = parts.netloc.rpartition("@")
        embedded = EmbeddedBroker(address, dialled(address, token, tls), on_restored)
        await embedded.start(PATIENCE_SECONDS)
        return embedded
    if scheme in ("amqp", "amqps"):
        from services.common.broker.rabbitmq.adapter import RabbitBroker  # noqa: PLC0415 -- a local stack needs no aio-pika

        rabbit = RabbitBroker(url, name, on_restored, tls)
        await rabbit.start(PATIENCE_SECONDS)
        return rabbit
    raise InvalidArgument(
        f"broker scheme '{scheme}': expected embedded://host:port or amqp[s]://user:password@host:port/vhost"
    )
