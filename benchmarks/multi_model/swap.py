"""A canary, a swap and a rollback under many callers: nobody fails, each answer is the version's that it names.

python -m benchmarks.multi_model.swap [--callers 64] [--rounds 10]
"""

import argparse
import asyncio
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from grpc import aio

from benchmarks.multi_model.callers import percentile
from headrace import Client
from headrace.client.registry import RegistryClient
from headrace.inference.grpc_service_pb2 import ModelInferRequest
from headrace.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from tests.support import models
from tests.support.stack import RunningStack, running_stack, wait_until

if TYPE_CHECKING:
    from headrace.inference.grpc_service_pb2_grpc import GRPCInferenceServiceAsyncStub

NAME = "swapped"


class Callers:
    """Call until told to stop, each with a key of its own."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._stop = False
        self.seen: list[tuple[float, str]] = []
        self.latencies: list[float] = []

    @asynccontextmanager
    async def calling(self, callers: int) -> AsyncIterator[None]:
        """While the block runs. Raises what the first failed call raised, RuntimeError at the first wrong answer."""
        async with aio.insecure_channel(self._address) as channel, asyncio.TaskGroup() as group:
            stub = GRPCInferenceServiceStub(channel)
            for number in range(callers):
                group.create_task(self._call(stub, number))
            try:
                yield
            finally:
                self._stop = True

    def since(self, began: float) -> Counter[str]:
        """Versions of the answers to calls that began after a moment."""
        return Counter(version for at, version in self.seen if at > began)

    async def _call(self, stub: "GRPCInferenceServiceAsyncStub", number: int) -> None:
        request = ModelInferRequest(model_name=NAME, raw_input_contents=[bytes(64)])
        request.inputs.add(name="x", datatype="FP32", shape=[1, 16])
        while not self._stop:
            began = time.perf_counter()
            response = await stub.ModelInfer(request, timeout=30, metadata=(("headrace-key", str(number)),))
            self.latencies.append(time.perf_counter() - began)
            value = np.frombuffer(response.raw_output_contents[0], np.float32)[0]
            if value != float(response.model_version):
                raise RuntimeError(f"version {response.model_version} answered {value}")
            self.seen.append((began, response.model_version))


async def rounds(up: RunningStack, folder: Path, callers: int, count: int) -> None:
    """Each round pushes a version, tries it on a tenth, swaps to it, goes back, and swaps again."""
    crowd = Callers(up.address("gateway"))
    with RegistryClient(up.address("registry")) as registry:
        async with crowd.calling(callers):
            for version in range(2, count + 2):
                await asyncio.to_thread(registry.push, NAME, models.add(folder / f"{version}.onnx", version))
                for weight, expected in ((10, {version - 1, version}), (100, {version})):
                    await asyncio.to_thread(registry.promote, NAME, version, weight=weight)
                    await moved(crowd, expected)
                await asyncio.to_thread(registry.rollback, NAME)
                await moved(crowd, {version - 1})
                await asyncio.to_thread(registry.promote, NAME, version)
                await moved(crowd, {version})
    print(f"{4 * count} changes of the rollout under {callers} callers: {len(crowd.seen)} requests, none failed,")
    print("each answered by the version that it named, and only by versions that the rollout named")
    print(f"p50 {percentile(crowd.latencies, 0.5):.1f} ms, p99 {percentile(crowd.latencies, 0.99):.1f} ms")


async def moved(crowd: Callers, expected: set[int]) -> None:
    """Until half a second of calls saw these versions, all of them and no others. Raises TimeoutError."""
    async with asyncio.timeout(30):
        while True:
            began = time.perf_counter()
            await asyncio.sleep(0.5)  # the span that is looked at
            if set(crowd.since(began)) == {str(version) for version in expected}:
                return


def main() -> None:
    """On a stack of two workers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--callers", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with running_stack(folder / "data", workers=2) as up:
            with RegistryClient(up.address("registry")) as registry, Client(up.address("gateway")) as client:
                registry.push(NAME, models.add(folder / "1.onnx", 1))
                registry.promote(NAME, 1)
                wait_until(lambda: any(model.consumers for model in client.status().models), "a worker")
            asyncio.run(rounds(up, folder, options.callers, options.rounds))


if __name__ == "__main__":
    main()
