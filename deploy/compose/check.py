"""What test.sh sends to a stack of one model: `push` the digits, or keep a steady `load` on it and count both sides.

python deploy/compose/check.py push
python deploy/compose/check.py load --seconds 20 [--callers 32]
"""

import argparse
import asyncio
import tempfile
from pathlib import Path

import numpy as np
from counting import Count, keep, settle, wait_ready

from headrace import AsyncClient
from headrace.client.registry import RegistryClient

MODEL = "digits"
CALL_SECONDS = 60.0


def push(registry: str) -> None:
    """Trains and publishes."""
    from digits import train  # noqa: PLC0415  # scikit-learn takes seconds to import, and a load must begin at once

    with tempfile.TemporaryDirectory() as folder, RegistryClient(registry) as client:
        path = Path(folder) / "digits.onnx"
        train(path)
        version = client.push(MODEL, path)
    print(f"published {version.name} version {version.version}")


async def load(address: str, callers: int, seconds: float) -> Count:
    """Each caller sends its next image when the last is answered; right is what the model said before the load."""
    images = np.random.default_rng(0).random((64, 64), np.float32)
    async with AsyncClient(address) as client:
        expected = (await client.infer(MODEL, {"X": images}, timeout=CALL_SECONDS)).outputs["label"]

        async def ask(number: int) -> bool:
            row = number % len(images)
            result = await client.infer(MODEL, {"X": images[row : row + 1]}, timeout=CALL_SECONDS)
            return bool(result.outputs["label"][0] == expected[row])

        return await keep(ask, callers, seconds)


def main() -> None:
    """One of the two."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["push", "load"])
    parser.add_argument("--address", default="127.0.0.1:8001")
    parser.add_argument("--registry", default="127.0.0.1:8003")
    parser.add_argument("--callers", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=10)
    asked = parser.parse_args()
    if asked.what == "push":
        push(asked.registry)
        return
    wait_ready(asked.address, MODEL)
    settle(asyncio.run(load(asked.address, asked.callers, asked.seconds)), asked.seconds)


if __name__ == "__main__":
    main()
