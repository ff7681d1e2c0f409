"""The demo's second part: pushes a small language model and lets it write, one piece as it comes after the other.

    python examples/write.py [PROMPT]

The model in `examples/writer` has two million parameters; `examples/train_writer.py` made it of Python's own language
reference in ten minutes. It writes what looks like that text, and no sense.
"""

import argparse
import asyncio
import tempfile
import time
from pathlib import Path

from local_stack import console, stack

from headrace import AsyncClient
from headrace.client.errors import NotFoundError, UnavailableError
from headrace.client.registry import RegistryClient

MODEL = "writer"
PROMPT = 'The "try" statement\n'


async def write(address: str, prompt: str) -> None:
    """Streams a continuation to the terminal."""
    console.print(f"[bold]{prompt}[/bold]", end="", highlight=False)
    async with AsyncClient(address) as client:
        began, first, tokens = time.monotonic(), 0.0, 0
        async for piece in client.stream(MODEL, prompt, max_tokens=300, temperature=0.4, seed=7, timeout=120):
            first = first or time.monotonic()
            tokens += len(piece.token_ids)
            console.print(piece.text, end="", markup=False, highlight=False, soft_wrap=True)
    seconds = time.monotonic() - first
    console.print(
        f"\n\n[dim]{tokens} tokens through gateway, queue and worker: the first after {(first - began) * 1000:.0f} ms,"
        f" then {(tokens - 1) / seconds:.0f} a second[/dim]",
        highlight=False,
        soft_wrap=True,
    )


async def known(address: str) -> None:
    """Returns once the gateway knows the model and a worker has it; a first word is what makes it load."""
    async with AsyncClient(address) as client, asyncio.timeout(120):
        while True:
            try:
                await client.generate(MODEL, "The", max_tokens=1, timeout=120)
                return
            except (NotFoundError, UnavailableError):
                await asyncio.sleep(0.1)


async def demo(prompt: str) -> None:
    """Start to finish."""
    with tempfile.TemporaryDirectory(prefix="headrace-demo-") as folder:
        console.rule("a language model: start the stack")
        async with stack(Path(folder)) as addresses:
            console.rule("push")
            with RegistryClient(addresses["registry"]) as registry:
                package = Path(__file__).parent / "writer"
                published = await asyncio.to_thread(registry.push, MODEL, package)
            console.print(f"published {published.name} version {published.version}; a worker loads it")
            await known(addresses["gateway"])
            console.rule("write")
            await write(addresses["gateway"], prompt)
            console.rule("stop")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prompt", nargs="?", default=PROMPT)
    arguments = parser.parse_args()
    asyncio.run(demo(arguments.prompt))
