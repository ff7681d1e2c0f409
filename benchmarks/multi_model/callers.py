"""Callers that work a sequence off in order, as many at a time as asked for."""

import asyncio
import time
from collections.abc import Iterable

from grpc import aio

from benchmarks.multi_model.zoo import is_right, request
from headrace.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub

TIMEOUT_SECONDS = 60.0


async def call_all(address: str, sequence: Iterable[int], callers: int) -> list[float]:
    """Seconds for each request. Raises RuntimeError at the first wrong answer, RpcError at the first failed one."""
    left, latencies = iter(sequence), []

    async with aio.insecure_channel(address) as channel:
        stub = GRPCInferenceServiceStub(channel)

        async def caller() -> None:
            for model in left:
                began = time.perf_counter()
                response = await stub.ModelInfer(request(model), timeout=TIMEOUT_SECONDS)
                latencies.append(time.perf_counter() - began)
                if not is_right(model, response):
                    raise RuntimeError(f"model {model} was asked, another answered")

        async with asyncio.TaskGroup() as group:
            for _ in range(callers):
                group.create_task(caller())
    return latencies


def percentile(latencies: list[float], share: float) -> float:
    """In milliseconds."""
    return sorted(latencies)[min(len(latencies) - 1, int(len(latencies) * share))] * 1000
