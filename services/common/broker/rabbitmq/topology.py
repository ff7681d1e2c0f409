"""Queues: how they are declared and counted."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from aiormq.abc import AbstractChannel, AbstractConnection, ArgumentsType

from services.common.broker.port import Depth, QueueSpec
from services.common.broker.rabbitmq.faults import translated

CLOSE_SECONDS = 2.0


async def declare(connection: AbstractConnection, queue: QueueSpec) -> None:
    """Makes a queue: a quorum queue where messages are durable, else a classic one. Raises FailedPrecondition."""
    arguments: ArgumentsType = {}
    if queue.durable_messages:
        arguments["x-queue-type"] = "quorum"
        if queue.delivery_limit is not None:
            arguments["x-delivery-limit"] = queue.delivery_limit
        elif _major(connection) >= 4:  # which has a limit of 20 of its own
            arguments["x-delivery-limit"] = -1
    if queue.max_length is not None:
        arguments["x-max-length"], arguments["x-overflow"] = queue.max_length, "reject-publish"
    if queue.dead_letter is not None:
        arguments["x-dead-letter-exchange"], arguments["x-dead-letter-routing-key"] = "", queue.dead_letter
    with translated(f"declaration of '{queue.name}'"):
        async with _control(connection) as channel:
            await channel.queue_declare(queue.name, durable=True, arguments=arguments)


def _major(connection: AbstractConnection) -> int:
    """RabbitMQ's major version."""
    return int(str(connection.server_properties.get("version", "3")).partition(".")[0])


async def depth(connection: AbstractConnection, queue: str) -> Depth:
    """What waits, in messages, and the consumers. Raises NotFound."""
    with translated(f"depth of '{queue}'"):
        async with _control(connection) as channel:
            declared = await channel.queue_declare(queue, passive=True)
    return Depth(declared.message_count or 0, declared.consumer_count or 0)


@asynccontextmanager
async def _control(connection: AbstractConnection) -> AsyncIterator[AbstractChannel]:
    """A channel for one question: RabbitMQ closes a channel over any fault, so none is shared."""
    channel = await connection.channel(publisher_confirms=False)
    try:
        yield channel
    finally:
        with suppress(Exception):
            async with asyncio.timeout(CLOSE_SECONDS):
                await channel.close(None)
