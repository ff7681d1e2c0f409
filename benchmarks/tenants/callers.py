"""Tenants that send at random moments whatever becomes of what they sent, as a crowd of callers does."""

import asyncio
import time
from dataclasses import dataclass, field
from random import Random

import grpc
from grpc import aio

from benchmarks.tenants.kinds import Kind, Metadata


@dataclass(slots=True)
class Seen:
    """What became of one tenant's requests: seconds of those that were answered, and the codes of the others."""

    latencies: list[float] = field(default_factory=list)
    failed: dict[str, int] = field(default_factory=dict)


# Tenants are not one process: each has connections of his own, not a place in another's.
_OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]


def connect(address: str) -> aio.Channel:
    """A channel that shares no connection with others."""
    return aio.insecure_channel(address, options=_OWN_CONNECTION)


async def crowd(  # noqa: PLR0917  # one caller, which is short
    kind: Kind, gateways: list[str], rates: dict[str, float], keys: dict[str, str], seconds: float, seed: int
) -> dict[str, Seen]:
    """Each tenant sends at his rate (Poisson), to the gateways in turn, for so long.

    Args:
        keys: by tenant; empty: no keys are asked for.
    """
    seen = {tenant: Seen() for tenant in rates}
    channels = {tenant: [connect(address) for address in gateways] for tenant in rates}
    async with asyncio.TaskGroup() as group:
        for number, (tenant, rate) in enumerate(rates.items()):
            metadata: Metadata = (("x-api-key", keys[tenant]),) if keys else ()
            sender = _send(kind, channels[tenant], metadata, rate, seconds, Random(seed * 100 + number), seen[tenant])
            group.create_task(sender)
    for each in channels.values():
        for channel in each:
            await channel.close()
    return seen


async def _send(  # noqa: PLR0917  # one caller, above
    kind: Kind, channels: list[aio.Channel], metadata: Metadata, rate: float, seconds: float, chance: Random, seen: Seen
) -> None:
    at, end, number = time.perf_counter(), time.perf_counter() + seconds, 0

    async def one(channel: aio.Channel) -> None:
        try:
            seen.latencies.append(await kind.call(channel, metadata, chance))
        except grpc.RpcError as error:
            code = error.code().name
            seen.failed[code] = seen.failed.get(code, 0) + 1

    async with asyncio.TaskGroup() as group:
        while (at := at + chance.expovariate(rate)) < end:
            await asyncio.sleep(max(0.0, at - time.perf_counter()))
            group.create_task(one(channels[number % len(channels)]))
            number += 1


async def capacity(kind: Kind, gateway: str, key: str, callers: int, seconds: float) -> float:
    """Answers a second to so many callers that never pause."""
    done, end, chance = 0, time.perf_counter() + seconds, Random(0)
    metadata: Metadata = (("x-api-key", key),) if key else ()

    async with aio.insecure_channel(gateway) as channel:

        async def caller() -> None:
            nonlocal done
            while time.perf_counter() < end:
                await kind.call(channel, metadata, chance)
                done += 1

        async with asyncio.TaskGroup() as group:
            for _ in range(callers):
                group.create_task(caller())
    return done / seconds
