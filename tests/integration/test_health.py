"""What the health service of our own processes says, as an orchestrator's probe hears it."""

import asyncio

from headrace.cli.ports import free_port
from services.common.probe import serves
from services.common.rpc import serving


async def test_a_process_is_healthy_once_it_is_ready() -> None:
    ready = asyncio.Event()
    async with serving(f"127.0.0.1:{(port := free_port())}", [], lambda server: None, ready=ready):
        assert not await asyncio.to_thread(serves, f"127.0.0.1:{port}")
        ready.set()
        async with asyncio.timeout(20):
            while True:
                if await asyncio.to_thread(serves, f"127.0.0.1:{port}"):
                    break
    assert not await asyncio.to_thread(serves, f"127.0.0.1:{port}")
