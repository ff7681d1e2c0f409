"""A consumer process that takes messages and never settles one: `python -m tests.support.holding_consumer URL QUEUE`.

Prints a line for each message that it holds; tests kill it.
"""

import asyncio
import sys

from services.common.broker.connect import connect
from services.common.broker.port import Delivery


async def main(url: str, queue: str) -> None:
    """Holds what comes, for ever."""
    held: list[Delivery] = []
    broker = await connect(url, name="holder")

    def hold(delivery: Delivery) -> None:
        held.append(delivery)
        print("held", flush=True)

    await broker.consume(queue, hold, prefetch=100, priority=9)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
