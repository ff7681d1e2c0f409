"""A steady load that counts both sides: what was sent, and what came of it."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from grpc import aio

from headrace.client.inference import SERVICE_CONFIG
from headrace.client.tensors import make_request, read_response
from headrace.client.tls import Options, Tls, open_async_channel
from headrace.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub

if TYPE_CHECKING:
    from headrace.inference.grpc_service_pb2_grpc import GRPCInferenceServiceAsyncStub

CALLERS = 64
TIMEOUT_SECONDS = 30.0


@dataclass(slots=True)
class Count:
    """What became of the requests to `add_one`.

    Attributes:
        errors: gRPC's code and text → how often.
    """

    sent: int = 0
    right: int = 0
    wrong: int = 0
    errors: Counter[str] = field(default_factory=Counter)

    async def answered(self, more: int) -> None:
        """Until `more` further requests were answered."""
        target = self.right + more
        async with asyncio.timeout(60):
            while self.right < target:  # noqa: ASYNC110  # the callers count, nobody signals
                await asyncio.sleep(0.01)

    def balanced(self) -> bool:
        """Accepted = answered + failed."""
        return self.sent == self.right + self.wrong + self.errors.total()


class Caller:
    """Asks a gateway, or several.

    Args:
        retries: with the configuration that Headrace's own client has; without, a caller sees every failure.
    """

    def __init__(self, channel: aio.Channel, *, retries: bool) -> None:
        self._stub: GRPCInferenceServiceAsyncStub = GRPCInferenceServiceStub(channel)
        self._retries = retries

    async def ask(self, value: float, timeout: float = TIMEOUT_SECONDS) -> str:
        """What becomes of one request: "right", "wrong", or gRPC's code and text."""
        request = make_request("add_one", {"x": np.full((1, 16), value, np.float32)}, "", "")
        try:
            response = await self._stub.ModelInfer(request, timeout=timeout, wait_for_ready=not self._retries)
        except aio.AioRpcError as error:
            return f"{error.code().name}: {error.details()}"
        return "right" if (read_response(response)["y"] == np.float32(value) + 1).all() else "wrong"


@asynccontextmanager
async def calling(address: str, *, retries: bool, tls: Tls | None = None) -> AsyncIterator[Caller]:
    """A caller until the block ends; `address` may be what `several` gives."""
    options: Options = [("grpc.service_config", SERVICE_CONFIG)] if retries else [("grpc.enable_retries", 0)]
    async with open_async_channel(address, tls, options, []) as channel:
        yield Caller(channel, retries=retries)


@asynccontextmanager
async def steady_load(address: str, *, retries: bool = True, tls: Tls | None = None) -> AsyncIterator[Count]:
    """64 callers until the block ends, each sending its next request when the last is answered."""
    count, stop = Count(), asyncio.Event()

    async def keep_asking(caller: Caller, number: int) -> None:
        while not stop.is_set():
            value = float(number + CALLERS * (count.sent % 10_000))
            count.sent += 1
            match await caller.ask(value):
                case "right":
                    count.right += 1
                case "wrong":
                    count.wrong += 1
                case error:
                    count.errors[error] += 1

    async with calling(address, retries=retries, tls=tls) as caller, asyncio.TaskGroup() as group:
        for number in range(CALLERS):
            group.create_task(keep_asking(caller, number))
        yield count
        stop.set()


def several(*addresses: str) -> str:
    """The target of a client that knows several gateways."""
    return f"ipv4:{','.join(addresses)}"
