"""What test.sh sends to a stack of a language model: the small one of examples/writer.

python deploy/compose/check_text.py push
python deploy/compose/check_text.py load --seconds 20 [--callers 8]     # streams; each must be the text that it was
"""

import argparse
import asyncio
from pathlib import Path

from counting import Count, keep, settle, wait_ready

from headrace import AsyncClient
from headrace.client.registry import RegistryClient

MODEL = "writer"
FOLDER = Path(__file__).resolve().parents[2] / "examples" / MODEL
CALL_SECONDS = 120.0
PROMPTS = ["def ", "The list", "Returns", "for each"]
TOKENS = 96


async def stream(client: AsyncClient, prompt: str, seed: int) -> tuple[str, int]:
    """The text of one stream, and in how many pieces it came."""
    pieces = [
        piece.text
        async for piece in client.stream(
            MODEL, prompt, max_tokens=TOKENS, temperature=0.8, seed=seed, ignore_eos=True, timeout=CALL_SECONDS
        )
    ]
    return "".join(pieces), len(pieces)


async def load(address: str, callers: int, seconds: float) -> Count:
    """Right is the text that the same prompt and seed gave before the load, whoever died meanwhile."""
    async with AsyncClient(address) as client:
        expected = {}
        for seed, prompt in enumerate(PROMPTS):
            expected[seed], pieces = await stream(client, prompt, seed)
            print(f"{prompt + expected[seed][:60]!r}… in {pieces} pieces", flush=True)

        async def ask(number: int) -> bool:
            seed = number % len(PROMPTS)
            text, _ = await stream(client, PROMPTS[seed], seed)
            return text == expected[seed]

        return await keep(ask, callers, seconds)


def main() -> None:
    """One of the two."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["push", "load"])
    parser.add_argument("--address", default="127.0.0.1:8001")
    parser.add_argument("--registry", default="127.0.0.1:8003")
    parser.add_argument("--callers", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=10)
    asked = parser.parse_args()
    if asked.what == "push":
        with RegistryClient(asked.registry) as client:
            version = client.push(MODEL, FOLDER)
        print(f"published {version.name} version {version.version}")
        return
    wait_ready(asked.address, MODEL)
    count = asyncio.run(load(asked.address, asked.callers, asked.seconds))
    settle(count, asked.seconds)


if __name__ == "__main__":
    main()
