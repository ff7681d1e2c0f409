"""The load generator, one process for each cell: callers in a closed loop over one channel.

python -m benchmarks.load ADDRESS REQUEST_FILE CALLERS WARM_UP_SECONDS SECONDS

Prints one JSON object: the answers per second and the latencies of the calls that began and ended in the measured time.
"""

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

import uvloop
from grpc import aio

METHOD = "/inference.GRPCInferenceService/ModelInfer"
TIMEOUT_SECONDS = 30.0  # a deadline, as a careful client sets one


async def load(address: str, request: bytes, callers: int, warm_up: float, seconds: float) -> tuple[list[float], int]:
    """Latencies in seconds of the measured calls, and the number of all. Raises grpc.RpcError at the first failure."""
    latencies: list[float] = []
    calls = 0
    clock = time.perf_counter
    begin = clock() + warm_up
    end = begin + seconds
    async with aio.insecure_channel(address) as channel:
        infer: Any = channel.unary_unary(METHOD)  # without serializers: bytes in, bytes out

        async def caller() -> None:
            nonlocal calls
            while (asked := clock()) < end:
                await infer(request, timeout=TIMEOUT_SECONDS)
                answered = clock()
                calls += 1
                if asked >= begin and answered <= end:
                    latencies.append(answered - asked)

        await channel.channel_ready()
        async with asyncio.TaskGroup() as group:
            for _ in range(callers):
                group.create_task(caller())
    return latencies, calls


def summary(latencies: list[float], calls: int, seconds: float) -> dict[str, float]:
    """requests/s, p50 and p99 in milliseconds, and the calls that were made, those of the warm-up too."""
    latencies = sorted(latencies)
    return {
        "calls": calls,
        "rate": len(latencies) / seconds,
        "p50_ms": latencies[len(latencies) // 2] * 1000,
        "p99_ms": latencies[len(latencies) * 99 // 100] * 1000,
    }


def main() -> None:
    """Runs one cell."""
    address, file, callers, warm_up, seconds = sys.argv[1:]
    request = Path(file).read_bytes()
    latencies, calls = uvloop.run(load(address, request, int(callers), float(warm_up), float(seconds)))
    print(json.dumps(summary(latencies, calls, float(seconds))))


if __name__ == "__main__":
    main()
