"""What the worker's tests stand on: a real broker and registry, real workers, and a gateway that the tests play."""

import asyncio
import itertools
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np

from headrace.client.registry import RegistryClient
from headrace.inference.grpc_service_pb2 import ModelInferRequest, ModelInferResponse
from headrace.v1.reply_pb2 import AttachRequest, AttachResponse, PayloadPart, Reply, Verdict
from headrace.v1.reply_pb2_grpc import ReplyServiceServicer, add_ReplyServiceServicer_to_server
from headrace.v1.work_pb2 import Envelope, WorkRequest
from services.common.broker.connect import connect
from services.common.broker.port import Broker, Message
from services.common.errors import NotFound
from services.common.rpc import serving
from tests.support import models

PATIENCE = 30.0


class Gateway(ReplyServiceServicer):
    """The gateway's half of the reply channel; what it answers is up to the test.

    Attributes:
        confirm: tell workers that their frames arrived.
        grant: answer claims with "run".
        payloads: what stayed here.
        claims: (worker, id), in order.
        frames: replies by (worker, sequence) and how often they came.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.reply_to = ""
        self.confirm = self.grant = True
        self.payloads: dict[int, list[bytes]] = {}
        self.claims: list[tuple[str, int]] = []
        self.frames: dict[tuple[str, int], int] = {}
        self.links: dict[str, asyncio.Queue[AttachResponse | None]] = {}
        self._answers: dict[int, asyncio.Future[Reply]] = {}

    def answer(self, request_id: int) -> asyncio.Future[Reply]:
        """Resolves to the first reply of an id."""
        return self._answers.setdefault(request_id, asyncio.get_running_loop().create_future())

    async def Attach(  # noqa: N802
        self, request_iterator: AsyncIterator[AttachRequest], context: Any
    ) -> AsyncIterator[AttachResponse]:
        """One worker's stream; None in its queue breaks it."""
        hello = (await anext(request_iterator)).hello
        if hello.gateway_id != self.name:
            raise NotFound(f"this is {self.name}")
        down = self.links[hello.worker_id] = asyncio.Queue()
        down.put_nowait(AttachResponse())

        async def read() -> None:
            async for frame in request_iterator:
                self._take(hello.worker_id, frame, down)

        reader = asyncio.create_task(read())
        try:
            while (response := await down.get()) is not None:
                yield response
        finally:
            reader.cancel()

    def _take(self, worker: str, frame: AttachRequest, down: "asyncio.Queue[AttachResponse | None]") -> None:
        response = AttachResponse()
        for reply in frame.replies:
            if not self.answer(reply.id).done():
                self.answer(reply.id).set_result(reply)
        if frame.sequence:
            self.frames[worker, frame.sequence] = self.frames.get((worker, frame.sequence), 0) + 1
            response.received = frame.sequence if self.confirm else 0
        for claim in frame.claims:
            self.claims.append((worker, claim.id))
            response.verdicts.append(Verdict(id=claim.id, run=self.grant, attempt=1))
        for request_id in frame.fetches:
            *parts, last = self.payloads[request_id]
            response.payloads.extend(PayloadPart(id=request_id, data=part) for part in parts)
            response.payloads.add(id=request_id, data=last, last=True)
        down.put_nowait(response)


@asynccontextmanager
async def gateway(name: str = "gateway-1") -> AsyncIterator[Gateway]:
    """A gateway that serves."""
    played = Gateway(name)
    names = ["headrace.v1.ReplyService"]
    async with serving(
        "127.0.0.1:0", names, lambda server: add_ReplyServiceServicer_to_server(played, server), grace=0
    ) as port:
        played.reply_to = f"127.0.0.1:{port}/{name}/token"
        yield played


class Bench:
    """Broker and registry as processes, and any number of workers."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder = folder
        self.environment = dict(environment)
        self.broker: Broker
        self.processes: list[asyncio.subprocess.Process] = []
        self._count = itertools.count(1)
        self._ids = itertools.count(1)

    async def start(self, service: str, **environment: str) -> tuple[asyncio.subprocess.Process, str]:
        """Runs a service; returns when it says ready, with its address."""
        with (self.folder / f"{service}-{next(self._count)}.log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", f"services.{service}"),
                env={**os.environ, "HEADRACE_LISTEN": "127.0.0.1:0", **self.environment, **environment},
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )
        self.processes.append(process)
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), PATIENCE)
        assert line.startswith(f"ready {service} ".encode()), f"{line!r}: see {log.name}"
        return process, line.split()[2].decode()

    async def worker(self, name: str) -> asyncio.subprocess.Process:
        """A worker that is ready."""
        return (await self.start("worker", HEADRACE_WORKER_ID=name, HEADRACE_CACHE=str(self.folder / "cache")))[0]

    def push(self, name: str, path: Path) -> None:
        """Publishes a model."""
        with RegistryClient(self.environment["HEADRACE_REGISTRY"]) as registry:
            registry.push(name, path)

    async def publish(self, queue: str, reply_to: str, *works: WorkRequest) -> list[int]:
        """One envelope; returns the ids of its requests."""
        now_us = time.time_ns() // 1000
        for work in works:
            work.id = work.id or next(self._ids)
            work.accepted_unix_us, work.deadline_unix_us = now_us, work.deadline_unix_us or now_us + 60_000_000
        envelope = Envelope(requests=works)
        await self.broker.publish(queue, Message(envelope.SerializeToString(), len(works), reply_to))
        return [work.id for work in works]

    async def depth(self, queue: str, ready: int, consumers: int) -> None:
        """Until the queue looks like this."""

        async def looks_so() -> bool:
            try:
                depth = await self.broker.depth(queue)
            except NotFound:  # no worker has declared it yet
                return False
            return (depth.ready, depth.consumers) == (ready, consumers)

        await until(looks_so)

    def log(self, service: str) -> str:
        """What all processes of a service logged."""
        return "".join(path.read_text() for path in self.folder.glob(f"{service}-*.log"))


async def until(condition: Callable[[], bool | Awaitable[bool]]) -> None:
    """For what has no event: returns once it holds, fails the test after a bound."""
    async with asyncio.timeout(PATIENCE):
        while True:
            holds = condition()
            if holds if isinstance(holds, bool) else await holds:
                return
            await asyncio.sleep(0.01)


@asynccontextmanager
async def running_bench(folder: Path) -> AsyncIterator[Bench]:
    """Broker and registry, no worker yet; the models add_one, look_up and burn are pushed."""
    bench = Bench(folder, {"HEADRACE_STORE": f"file://{folder}/store"})
    try:
        _, broker = await bench.start("broker")
        _, bench.environment["HEADRACE_REGISTRY"] = await bench.start("registry")
        bench.environment["HEADRACE_BROKER"] = f"embedded://{broker}"
        bench.broker = await connect(f"embedded://{broker}", name="test")
        for make in (models.add_one, models.look_up, models.burn):
            await asyncio.to_thread(bench.push, make.__name__, make(folder / f"{make.__name__}.onnx"))
        yield bench
        await bench.broker.close()
    finally:
        for process in bench.processes:
            if process.returncode is None:
                process.kill()
            await process.wait()


def work(name: str, array: Any, **fields: Any) -> WorkRequest:
    """A request for one of the test models, whose inputs have the names that tests/support/models.py gives them."""
    tensor, datatype = {"add_one": ("x", "FP32"), "look_up": ("index", "INT64"), "burn": ("turns", "INT64")}[name]
    values = np.asarray(array, np.float32 if datatype == "FP32" else np.int64)
    request = ModelInferRequest(model_name=name, id="mine", raw_input_contents=[values.tobytes()])
    request.inputs.add(name=tensor, datatype=datatype, shape=values.shape)
    return WorkRequest(body=request.SerializeToString(), **fields)


def row(value: float, **fields: Any) -> WorkRequest:
    """One row for add_one."""
    return work("add_one", np.full((1, 16), value), **fields)


async def answered(gateway: Gateway, request_id: int) -> Reply:
    """The reply of an id."""
    return await asyncio.wait_for(asyncio.shield(gateway.answer(request_id)), PATIENCE)


async def first_value(gateway: Gateway, request_id: int) -> float:
    """The first number of an answer that must be no error."""
    reply = await answered(gateway, request_id)
    assert reply.WhichOneof("outcome") == "body", reply.error.message
    return float(np.frombuffer(ModelInferResponse.FromString(reply.body).raw_output_contents[0], np.float32)[0])
