"""Both sides of a load: what was sent, and what became of it."""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from headrace import Client
from headrace.client.errors import HeadraceError

READY_SECONDS = 120.0


@dataclass(slots=True)
class Count:
    """Each request is right, wrong, or an error."""

    sent: int = 0
    right: int = 0
    wrong: int = 0
    errors: list[str] = field(default_factory=list)
    slowest: float = 0.0


def wait_ready(address: str, model: str) -> None:
    """Until a worker serves the model. Exits with a word if none does."""
    deadline = time.monotonic() + READY_SECONDS
    with Client(address) as client:
        while time.monotonic() < deadline:
            try:
                if client.model_ready(model):
                    return
            except HeadraceError:
                pass  # the gateway has not heard of it yet
            time.sleep(0.2)
    sys.exit(f"no worker serves '{model}' after {READY_SECONDS:.0f} s")


async def keep(ask: Callable[[int], Awaitable[bool]], callers: int, seconds: float) -> Count:
    """Each caller asks again when it has its answer. `ask(number)` says whether the answer was right."""
    count, end = Count(), time.monotonic() + seconds

    async def caller() -> None:
        while time.monotonic() < end:
            number, began = count.sent, time.monotonic()
            count.sent += 1
            try:
                right = await ask(number)
                count.right += right
                count.wrong += not right
            except HeadraceError as error:
                count.errors.append(f"{error.code}: {error}")
            count.slowest = max(count.slowest, time.monotonic() - began)

    print("the load begins", flush=True)
    async with asyncio.TaskGroup() as group:
        for _ in range(callers):
            group.create_task(caller())
    return count


def settle(count: Count, seconds: float) -> None:
    """Says what came of it; exits with 1 unless all was right."""
    print(
        f"sent {count.sent:,}: {count.right:,} right, {count.wrong} wrong, {len(count.errors)} failed;"
        f" slowest {count.slowest:.1f} s, {count.sent / seconds:,.1f} requests/s"
    )
    for error in sorted(set(count.errors))[:5]:
        print(f"  {error}")
    if count.wrong or count.errors or count.right != count.sent or not count.sent:
        sys.exit(1)
