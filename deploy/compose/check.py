"""What test.sh sends to a stack: `push` and classify the digits, or keep a steady `load` on it and count both sides.

python deploy/compose/check.py push
python deploy/compose/check.py load --seconds 20 [--callers 32]
"""

import argparse
import asyncio
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from headrace import AsyncClient, Client
from headrace.client.errors import HeadraceError
from headrace.client.registry import RegistryClient
from headrace.client.tensors import Array

MODEL = "digits"
READY_SECONDS = 60.0
CALL_SECONDS = 60.0


@dataclass(slots=True)
class Count:
    """Both sides: what was sent, and what became of it."""

    sent: int = 0
    right: int = 0
    wrong: int = 0
    errors: list[str] = field(default_factory=list)
    slowest: float = 0.0


def push(registry: str) -> None:
    """Trains and publishes."""
    from digits import train  # noqa: PLC0415  # scikit-learn takes seconds to import, and a load must begin at once

    with tempfile.TemporaryDirectory() as folder, RegistryClient(registry) as client:
        path = Path(folder) / "digits.onnx"
        train(path)
        version = client.push(MODEL, path)
    print(f"published {version.name} version {version.version}")


def wait_ready(address: str) -> None:
    """Until a worker serves the model. Exits with a word if none does."""
    deadline = time.monotonic() + READY_SECONDS
    with Client(address) as client:
        while time.monotonic() < deadline:
            try:
                if client.model_ready(MODEL):
                    return
            except HeadraceError:
                pass  # the gateway has not heard of it yet
            time.sleep(0.2)
    sys.exit(f"no worker serves '{MODEL}' after {READY_SECONDS:.0f} s")


async def load(address: str, callers: int, seconds: float) -> Count:
    """Each caller sends its next image when the last is answered; right is what the model said before the load."""
    images = np.random.default_rng(0).random((512, 64), np.float32)
    count, end = Count(), time.monotonic() + seconds
    async with AsyncClient(address) as client:
        expected = (await client.infer(MODEL, {"X": images[:64]}, timeout=CALL_SECONDS)).outputs["label"]

        async def caller() -> None:
            while time.monotonic() < end:
                row = count.sent % len(expected)
                count.sent += 1
                await _one(client, images[row : row + 1], expected[row], count)

        print("the load begins", flush=True)
        async with asyncio.TaskGroup() as group:
            for _ in range(callers):
                group.create_task(caller())
    return count


async def _one(client: AsyncClient, image: Array, label: int, count: Count) -> None:
    began = time.monotonic()
    try:
        result = await client.infer(MODEL, {"X": image}, timeout=CALL_SECONDS)
    except HeadraceError as error:
        count.errors.append(f"{error.code}: {error}")
        return
    finally:
        count.slowest = max(count.slowest, time.monotonic() - began)
    right = bool(result.outputs["label"][0] == label)
    count.right += right
    count.wrong += not right


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
    wait_ready(asked.address)
    count = asyncio.run(load(asked.address, asked.callers, asked.seconds))
    print(
        f"sent {count.sent:,}: {count.right:,} right, {count.wrong} wrong, {len(count.errors)} failed;"
        f" slowest {count.slowest:.1f} s, {count.sent / asked.seconds:,.0f} requests/s"
    )
    for error in sorted(set(count.errors))[:5]:
        print(f"  {error}")
    if count.wrong or count.errors or count.right != count.sent:
        sys.exit(1)


if __name__ == "__main__":
    main()
