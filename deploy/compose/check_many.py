"""What test.sh sends to a stack of many models, more than its workers hold at a time.

python deploy/compose/check_many.py push [--models 12]     # each adds its own number, and is charged 100 MiB
python deploy/compose/check_many.py load --seconds 20      # each model in turn; says what was loaded and evicted
"""

import argparse
import asyncio
import tempfile
from pathlib import Path

import grpc
import numpy as np
from counting import Count, keep, settle, wait_ready
from onnx import TensorProto, helper, save

from headrace import AsyncClient
from headrace.client.registry import RegistryClient
from headrace.v1.fleet_pb2 import ListWorkersRequest
from headrace.v1.fleet_pb2_grpc import FleetServiceStub

CALL_SECONDS = 60.0


def name(number: int) -> str:
    """Of a model."""
    return f"adds-{number}"


def package(folder: Path, number: int) -> Path:
    """A model that adds `number`."""
    shape: list[str | int | None] = ["batch", 4]
    x, y = (helper.make_tensor_value_info(each, TensorProto.FLOAT, shape) for each in "xy")
    by = helper.make_tensor("by", TensorProto.FLOAT, [1], [float(number)])
    graph = helper.make_graph([helper.make_node("Add", ["x", "by"], ["y"])], "adds", [x], [y], [by])
    (made := folder / name(number)).mkdir()
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), made / "model.onnx")
    (made / "model.yaml").write_text("memory: 100MiB\n")
    return made


def push(registry: str, models: int) -> None:
    """Publishes all."""
    with tempfile.TemporaryDirectory() as folder, RegistryClient(registry) as client:
        for number in range(models):
            client.push(name(number), package(Path(folder), number))
    print(f"published {models} models")


async def load(address: str, models: int, callers: int, seconds: float) -> Count:
    """Half of the requests go to the first three models, the others to all in turn."""
    row = np.arange(4, dtype=np.float32)[None]
    async with AsyncClient(address) as client:

        async def ask(number: int) -> bool:
            chosen = number // 2 % 3 if number % 2 else number // 2 % models
            result = await client.infer(name(chosen), {"x": row}, timeout=CALL_SECONDS)
            return bool(np.array_equal(result.outputs["y"], row + chosen))

        return await keep(ask, callers, seconds)


def fleet(registry: str) -> None:
    """Says what each worker holds and did."""
    with grpc.insecure_channel(registry) as channel:
        for worker in FleetServiceStub(channel).ListWorkers(ListWorkersRequest(), timeout=10).workers:
            used, budget = worker.memory_used_bytes >> 20, worker.memory_budget_bytes >> 20
            print(f"  {worker.hostname}: {used} of {budget} MiB, {worker.loads} loads, {worker.evictions} evictions")


def main() -> None:
    """One of the two."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["push", "load"])
    parser.add_argument("--address", default="127.0.0.1:8001")
    parser.add_argument("--registry", default="127.0.0.1:8003")
    parser.add_argument("--models", type=int, default=12)
    parser.add_argument("--callers", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=10)
    asked = parser.parse_args()
    if asked.what == "push":
        push(asked.registry, asked.models)
        return
    wait_ready(asked.address, name(0))
    count = asyncio.run(load(asked.address, asked.models, asked.callers, asked.seconds))
    fleet(asked.registry)
    settle(count, asked.seconds)


if __name__ == "__main__":
    main()
