"""What a package asks for is what its callers get: torch archives, padding, waiting for company, limits, warm-up."""

import asyncio
import urllib.error
import urllib.request
from collections.abc import Iterator

import grpc
import numpy as np
import pytest

from headrace import AsyncClient, Client
from headrace.client.errors import InvalidArgumentError, QueueFullError
from headrace.client.registry import RegistryClient
from headrace.client.tensors import make_request
from headrace.inference import grpc_service_pb2 as pb
from headrace.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from tests.e2e.conftest import ready
from tests.support import models
from tests.support.identity import ROW, identity
from tests.support.stack import RunningStack, wait_until

# Eight requests of one row fill a batch; until then the worker waits for company.
PADDED = "batching: {max_batch_size: 8, max_queue_delay_ms: 10000, padding: true}"
UNPADDED = "batching: {max_batch_size: 8, max_queue_delay_ms: 50}"
LIMITED = "batching: {max_batch_size: 8, max_queue_delay_ms: 10000}\nqueue: {max_requests: 4}"
# Zeros of length 1 do not fit into rows of five: without the shape its warm-up would fail.
WARMED = "warmup: {batch_sizes: [3], shapes: {x: [5]}}"


@pytest.fixture(scope="module")
def batching(stack: RunningStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """The shared stack with these tests' models."""
    folder = tmp_path_factory.mktemp("batching")
    packages = {
        "exported": models.exported_sum(folder / "exported.pt2"),
        "bfloat": models.exported_double(folder / "bfloat.pt2"),
        "padded": models.folder(folder / "padded", models.row_sum, PADDED),
        "patient": models.folder(folder / "patient", models.row_sum, UNPADDED),
        "limited": models.folder(folder / "limited", models.row_sum, LIMITED),
        "warmed": models.folder(folder / "warmed", models.fives, WARMED),
        "levels": identity(
            folder / "levels",
            batch_ms=0,
            request_ms=5,
            max_batch_size=1,
            levels="priority_levels: 3, default_priority_level: 2",
        ),
        "cold": models.folder(folder / "cold", models.fives, ""),
    }
    with RegistryClient(stack.address("registry")) as registry, Client(stack.address("gateway")) as client:
        for name, path in packages.items():
            registry.push(name, path)
        for name in packages:
            wait_until(lambda name=name: ready(client, name), f"{name} to be ready", 60)  # type: ignore[misc]
        yield stack
        for name in packages:
            registry.delete_model(name)


async def test_an_exported_archive_batches_with_every_row_to_its_caller(batching: RunningStack) -> None:
    async with AsyncClient(batching.address("gateway")) as client:

        async def one(number: int) -> int:
            rows = number % 5 + 1
            x, y = np.full((rows, 3), number, np.float32), np.ones((rows, 3), np.float32)
            result = await client.infer("exported", {"x": x, "y": y}, timeout=30)
            assert result.outputs["output0"].tolist() == (x + y).tolist()
            assert result.outputs["output1"].tolist() == [3.0 * number] * rows
            return int(result.receipt["batch_requests"])

        assert max(await asyncio.gather(*(one(number) for number in range(200)))) > 1


def test_bfloat16_goes_in_and_out_as_its_bits(batching: RunningStack) -> None:
    values = np.array([[1.0, -2.5, 0.0, 3.0e38]], np.float32)
    bits = (values.view(np.uint32) >> 16).astype(np.uint16)
    request = pb.ModelInferRequest(model_name="bfloat", raw_input_contents=[bits.tobytes()])
    request.inputs.add(name="x", datatype="BF16", shape=[1, 4])
    with grpc.insecure_channel(batching.address("gateway")) as channel:
        response = GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=30)
    assert (response.outputs[0].datatype, list(response.outputs[0].shape)) == ("BF16", [1, 4])
    wide = np.frombuffer(response.raw_output_contents[0], np.uint16).astype(np.uint32) << 16
    assert wide.view(np.float32).tolist() == [2.0, -5.0, 0.0, float("inf")]


async def test_padding_lets_different_lengths_share_a_batch(batching: RunningStack) -> None:
    async with AsyncClient(batching.address("gateway")) as client:
        lengths = [1, 2, 3, 5, 8, 13, 21, 34]
        ones = [np.ones((1, length), np.float32) for length in lengths]
        results = await asyncio.gather(*(client.infer("padded", x, timeout=60) for x in ones))
    assert [float(result.outputs["sum"][0, 0]) for result in results] == lengths
    assert {result.receipt["batch_requests"] for result in results} == {8}


async def test_without_padding_only_equal_lengths_share_one(batching: RunningStack) -> None:
    async with AsyncClient(batching.address("gateway")) as client:
        ones = [np.ones((1, length), np.float32) for length in (2, 3, 2, 3)]
        results = await asyncio.gather(*(client.infer("patient", x, timeout=60) for x in ones))
    assert [float(result.outputs["sum"][0, 0]) for result in results] == [2, 3, 2, 3]
    assert max(result.receipt["batch_requests"] for result in results) <= 2


def test_a_lone_request_waits_for_company_no_longer_than_allowed(batching: RunningStack) -> None:
    with Client(batching.address("gateway")) as client:
        alone = client.infer("patient", np.ones((1, 2), np.float32), timeout=60)
        assert alone.receipt["batch_us"] >= 45_000
        # Half of its own time at most, whatever the model allows.
        hurried = client.infer("padded", np.ones((1, 2), np.float32), timeout=4)
        assert hurried.receipt["batch_requests"] == 1


async def test_a_full_queue_refuses_at_once_and_says_when_to_come_again(batching: RunningStack) -> None:
    x = np.ones((1, 2), np.float32)
    async with AsyncClient(batching.address("gateway")) as client:
        accepted = [asyncio.create_task(client.infer("limited", x, timeout=6)) for _ in range(4)]
        async with asyncio.timeout(20):
            while not await holds(client, 4):  # noqa: ASYNC110  # the gateway has no event to wait for
                await asyncio.sleep(0.01)
        with pytest.raises(QueueFullError, match="has 4 requests waiting or running, its limit") as refused:
            await client.infer("limited", x, timeout=6)
        assert refused.value.retry_after == 1.0
        header = await asyncio.to_thread(retry_after, batching.http())
        assert header == "1"
        assert [float((await task).outputs["sum"][0, 0]) for task in accepted] == [2.0] * 4


async def holds(client: AsyncClient, count: int) -> bool:
    """Whether so many requests of the limited model are accepted and unanswered."""
    return any(model.name == "limited" and model.in_flight == count for model in (await client.status()).models)


def retry_after(http: str) -> str:
    """What HTTP says of the same."""
    body = b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 1]}]}'
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"http://{http}/v2/models/limited/infer", body, timeout=20)
    assert refused.value.code == 429
    header = refused.value.headers["retry-after"]
    refused.value.close()
    return str(header)


def test_warm_up_runs_the_shapes_that_the_package_names(batching: RunningStack) -> None:
    said = batching.log("worker-1")
    failed = [line for line in said.splitlines() if "warm-up with" in line and "failed" in line]
    assert len(failed) == 1, failed  # `cold`, which names none; it serves all the same
    with Client(batching.address("gateway")) as client:
        for name in ("warmed", "cold"):
            x = np.ones((1, 5), np.float32)
            assert client.infer(name, x, timeout=30).outputs["y"].tolist() == [[1.0] * 5]


async def test_higher_levels_go_first(batching: RunningStack) -> None:
    order: list[int] = []
    begun = asyncio.Event()
    async with AsyncClient(batching.address("gateway")) as client:

        async def one(level: int) -> None:
            await client.infer("levels", ROW, timeout=100, priority=level)
            order.append(level)
            if len(order) == 10:
                begun.set()

        async with asyncio.TaskGroup() as group:
            for level in [3] * 40 + [0] * 160:
                group.create_task(one(level))
            await asyncio.wait_for(begun.wait(), 60)
            before = len(order)
            await one(1)
            between = len(order) - 1 - before
            assert len(order) < 150, "the others still wait"
    # On the device, on the way to it and back, and in front of one worker: not the whole line.
    assert between <= 20, between
    assert order[-20:].count(3) >= 18, "the lowest level comes last, though it came first"


def test_levels_are_told_and_others_refused(batching: RunningStack) -> None:
    with grpc.insecure_channel(batching.address("gateway")) as channel:
        stub = GRPCInferenceServiceStub(channel)
        told = stub.ModelConfig(pb.ModelConfigRequest(name="levels"), timeout=30).config.dynamic_batching
        request = make_request("levels", ROW, "", "")
        request.parameters["priority"].string_param = "high"
        with pytest.raises(
            grpc.RpcError, match="'priority' is no integer; model 'levels' has levels 1, the highest, to 3"
        ):
            stub.ModelInfer(request, timeout=30)
    assert (told.priority_levels, told.default_priority_level) == (3, 2)
    with Client(batching.address("gateway")) as client:
        for level in (4, -1):
            with pytest.raises(
                InvalidArgumentError, match=f"'priority' is {level}; model 'levels' has levels 1.* to 3"
            ):
                client.infer("levels", ROW, priority=level, timeout=30)
        client.infer("levels", ROW, priority=3, timeout=30)
