"""The local stack as the examples run it: `headrace up` in a process of its own, and what it says."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from rich.console import Console

console = Console()


@asynccontextmanager
async def stack(data: Path, otlp: str = "") -> AsyncIterator[dict[str, str]]:
    """`headrace up` on free ports until the block ends; yields host:port of each process.

    Args:
        otlp: where it sends its traces; empty: nowhere.
    """
    command = [sys.executable, "-m", "headrace.cli.main", "up", "--data", str(data), "--otlp", otlp]
    for port in ("port", "metrics-port", "http-port", "registry-port", "broker-port", "jobs-port"):
        command += [f"--{port}", "0"]
    # Only the client begins a trace, so that it is the one that arrives.
    environment = {**os.environ, "HEADRACE_TRACES_PER_SECOND": "0"}
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE, env=environment)
    assert process.stderr is not None
    said = process.stderr
    try:
        while not await _relay(said):
            if said.at_eof():
                sys.exit("the stack did not start")
        relaying = asyncio.create_task(_relay_all(said))
        state = json.loads((data / "stack.json").read_text())
        yield {name: process["address"] for name, process in state.items()}
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
    await relaying


async def _relay(said: asyncio.StreamReader) -> bool:
    """Prints one line of the stack's; whether it is the one that says that all is up."""
    line = (await said.readline()).decode().rstrip()
    if line:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    return line.startswith("ready;")


async def _relay_all(said: asyncio.StreamReader) -> None:
    while not said.at_eof():
        await _relay(said)
