"""Whether there is a job service, for the console: one that never answered is none, one that was there may be away."""

import asyncio

from grpc import aio

from headrace.cli.ports import free_port
from services.common.rpc import serving
from services.gateway.console.jobs import Presence
from services.gateway.openai.jobs import Jobs, jobs_behind


def nothing(server: aio.Server) -> None:
    """Health, which `serving` adds itself, is all that is asked for."""


async def seen(presence: Presence, up: bool) -> None:
    """Channels to a service that was away dial again within a second."""
    deadline = asyncio.get_running_loop().time() + 30
    while (look := await presence.look()) is None or look["up"] is not up:
        assert asyncio.get_running_loop().time() < deadline, f"it did not turn to up={up}"
        await asyncio.sleep(0.02)


async def test_a_job_service_comes_goes_and_comes_back() -> None:
    address = f"127.0.0.1:{free_port()}"
    async with jobs_behind(address, None) as jobs:
        presence = Presence(jobs, address)
        assert await presence.look() is None
        for _ in range(2):
            async with serving(address, [], nothing, grace=0):
                await seen(presence, up=True)
                assert await presence.look() == {"address": address, "up": True}
            await seen(presence, up=False)


async def test_where_none_is_named_there_is_none() -> None:
    none: Jobs | None = None
    assert await Presence(none, "").look() is None
