"""What a user sees of a running stack, on both fronts."""

import asyncio
import json
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from headrace import AsyncClient, Client
from headrace.client.errors import (
    DeadlineExceededError,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
)
from headrace.client.jobs import JobsClient
from headrace.inference import grpc_service_pb2 as pb
from headrace.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from tests.support.stack import RunningStack


def rows(*values: float) -> dict[str, np.ndarray]:
    return {"x": np.array([[value] * 16 for value in values], np.float32)}


def test_answers_are_right_and_carry_a_receipt(client: Client) -> None:
    result = client.infer("add_one", rows(1, 2, 3))
    assert result.outputs["y"][:, 0].tolist() == [2, 3, 4]
    assert result.model_version == "1"
    assert result.receipt["batch_rows"] >= 3
    assert {"queue_us", "batch_us", "compute_us", "batch_requests"} <= result.receipt.keys()


def test_the_terminal_says_where_http_is_when_it_has_a_port_of_its_own(stack: RunningStack) -> None:
    apart = stack.http() != stack.address("gateway")
    assert apart == (stack.setting("gateway", "FRONT") == "grpc")
    told = f"the grpc front has a port of its own for HTTP (REST, OpenAI's API, console): {stack.http()}"
    assert (told in stack.said()) == apart


def test_a_job_has_its_results(stack: RunningStack) -> None:
    tensors = [
        {"name": "x", "datatype": "FP32", "shape": [1, 16], "data": [float(number)] * 16} for number in range(80)
    ]
    with JobsClient(stack.address("jobs")) as jobs:
        lines = [json.dumps({"inputs": [tensor]}).encode() + b"\n" for tensor in tensors]
        job = jobs.submit(lines, endpoint="/v2/models/add_one/infer").id
        *_, last = jobs.watch(job)
        assert (last.completed, last.failed) == (80, 0)
        results = [json.loads(line) for line in b"".join(jobs.results(job)).splitlines()]
    answers = [result["response"]["body"]["outputs"][0]["data"][0] for result in results]
    assert answers == [float(number) + 1 for number in range(80)]


def test_integers_and_strings(client: Client) -> None:
    assert client.infer("double", {"x": np.array([[2**40]], np.int64)}).outputs["y"].tolist() == [[2**41]]
    text = np.array([["größe"], [""]], object)
    echoed = client.infer("echo_text", {"text": text}).outputs["echoed"]
    assert [bytes(value).decode() for value in echoed.ravel().tolist()] == ["größe", ""]


async def test_concurrent_callers_share_batches_and_each_gets_its_own_answer(stack: RunningStack) -> None:
    async with AsyncClient(stack.address("gateway")) as client:

        async def one(number: int) -> int:
            result = await client.infer("add_one", rows(number), timeout=30)
            assert result.outputs["y"][0, 0] == number + 1
            return int(result.receipt["batch_requests"])

        batches = await asyncio.gather(*(one(number) for number in range(512)))
    assert max(batches) > 1


def test_a_bad_request_is_refused_with_what_was_expected(client: Client) -> None:
    with pytest.raises(NotFoundError, match="no model 'nope'"):
        client.infer("nope", rows(1))
    with pytest.raises(NotFoundError, match="no version or alias '7'; there are: 1"):
        client.infer("add_one", rows(1), version="7")
    with pytest.raises(InvalidArgumentError, match=r"shape \[1, 3\]; the model takes \[-1, 16\]"):
        client.infer("add_one", {"x": np.zeros((1, 3), np.float32)})


def test_a_poisoned_request_fails_alone(stack: RunningStack, client: Client) -> None:
    def one(index: int) -> float | str:
        try:
            return float(client.infer("look_up", {"index": np.array([[index]])}).outputs["square"][0, 0])
        except InternalError as error:
            return str(error)

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(one, [3, 99, 4] * 16))
    assert answers[0::3] == [9.0] * 16
    assert answers[2::3] == [16.0] * 16
    assert all("failed on this request" in str(answer) for answer in answers[1::3])


def test_the_deadline_of_the_call_is_kept(client: Client) -> None:
    with pytest.raises(DeadlineExceededError):
        client.infer("burn", {"turns": np.array(5_000)}, timeout=0.3)
    assert client.infer("burn", {"turns": np.array(1)}, timeout=30).outputs["sum"].shape == (256, 256)


async def test_a_caller_that_leaves_frees_its_place(stack: RunningStack) -> None:
    async with AsyncClient(stack.address("gateway")) as client:

        async def in_flight(count: int) -> None:
            async with asyncio.timeout(20):
                # The gateway has no event to wait for.
                while count != next(  # noqa: ASYNC110
                    model.in_flight for model in (await client.status()).models if model.name == "burn"
                ):
                    await asyncio.sleep(0.01)

        busy = asyncio.create_task(client.infer("burn", {"turns": np.array(8_000)}, timeout=60))
        await in_flight(1)
        waiting = [asyncio.create_task(client.infer("burn", {"turns": np.array(10**6)}, timeout=60)) for _ in range(8)]
        await in_flight(9)
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)
        # Each of the eight would have run for minutes.
        assert (await busy).outputs["sum"].shape == (256, 256)
        assert (await client.infer("burn", {"turns": np.array(1)}, timeout=30)).model_version == "1"


def test_a_payload_over_the_brokers_limit_is_fetched_by_the_worker(client: Client) -> None:
    big = np.array([["x" * 3_000_000]], object)
    assert len(client.infer("echo_text", {"text": big}, timeout=30).outputs["echoed"][0, 0]) == 3_000_000


def test_a_stream_answers_in_order_and_survives_a_bad_request(stack: RunningStack) -> None:
    good = pb.ModelInferRequest(model_name="double", id="good")
    good.inputs.add(name="x", datatype="INT64", shape=[1, 1]).contents.int64_contents.append(21)
    bad = pb.ModelInferRequest(model_name="nope", id="bad")
    with grpc.insecure_channel(stack.address("gateway")) as channel:
        answers = list(GRPCInferenceServiceStub(channel).ModelStreamInfer(iter([good, bad, good]), timeout=30))
    assert [answer.infer_response.id for answer in answers] == ["good", "bad", "good"]
    assert [bool(answer.error_message) for answer in answers] == [False, True, False]
    assert np.frombuffer(answers[2].infer_response.raw_output_contents[0], np.int64).tolist() == [42]


def test_health_metadata_statistics_and_reflection(stack: RunningStack, client: Client) -> None:
    with grpc.insecure_channel(stack.address("gateway")) as channel:
        stub = GRPCInferenceServiceStub(channel)
        assert stub.ServerLive(pb.ServerLiveRequest()).live
        assert stub.ServerReady(pb.ServerReadyRequest()).ready
        check = health_pb2_grpc.HealthStub(channel).Check  # type: ignore[attr-defined]  # untyped
        health = check(health_pb2.HealthCheckRequest())
        assert health.status == health_pb2.HealthCheckResponse.SERVING
        config = stub.ModelConfig(pb.ModelConfigRequest(name="add_one")).config
        assert (config.max_batch_size, list(config.input[0].dims)) == (64, [16])
        client.infer("double", {"x": np.array([[1]])})
        stats = stub.ModelStatistics(pb.ModelStatisticsRequest(name="double")).model_stats[0]
        assert stats.inference_count >= 1
        assert stats.inference_stats.success.count >= 1
        index = {model.name: model.state for model in stub.RepositoryIndex(pb.RepositoryIndexRequest()).models}
        assert index["add_one"] == "READY"
        pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
        assert "ModelInfer" in pool.FindServiceByName("inference.GRPCInferenceService").methods_by_name


def test_garbage_is_answered_and_kills_nothing(stack: RunningStack, client: Client) -> None:
    with grpc.insecure_channel(stack.address("gateway")) as channel:
        infer: Any = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        for body in (b"\xff" * 9, b"\x2a\x05abc", bytes(100)):
            with pytest.raises(grpc.RpcError) as refused:
                infer(body, timeout=10)
            assert refused.value.code() in {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND}
        with pytest.raises(grpc.RpcError) as unknown:
            unheard: Any = channel.unary_unary("/no.Service/Method")
            unheard(b"", timeout=10)
        assert unknown.value.code() == grpc.StatusCode.UNIMPLEMENTED
    assert client.infer("add_one", rows(1)).outputs["y"][0, 0] == 2


def test_infer_over_http(stack: RunningStack) -> None:
    body = {"inputs": [{"name": "x", "datatype": "INT64", "shape": [2, 1], "data": [[1], [2]]}]}
    url = f"http://{stack.http()}/v2/models/double/infer"
    with urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode())) as response:
        assert json.load(response)["outputs"][0]["data"] == [2, 4]


async def test_unloading_under_load_loses_nothing(stack: RunningStack) -> None:
    """Each request is answered, or refused because the model is unloaded; and it is asked for all the time."""
    refused = asyncio.Event()

    async with AsyncClient(stack.address("gateway")) as client:

        async def caller(stop: asyncio.Event) -> None:
            while not stop.is_set():
                try:
                    assert (await client.infer("add_one", rows(1), timeout=30)).outputs["y"][0, 0] == 2
                except NotFoundError as error:
                    assert "unloaded" in str(error)
                    refused.set()
                    await asyncio.sleep(0.01)

        stop = asyncio.Event()
        async with asyncio.TaskGroup() as callers, grpc.aio.insecure_channel(stack.address("gateway")) as channel:
            for _ in range(32):
                callers.create_task(caller(stop))
            stub: Any = GRPCInferenceServiceStub(channel)
            try:
                await stub.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name="add_one"), timeout=60)
                await asyncio.wait_for(refused.wait(), 30)
            finally:
                await stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="add_one"), timeout=60)
                stop.set()


def test_the_repository_extension_does_what_it_says(stack: RunningStack, client: Client) -> None:
    """Workers load by themselves, and by hand: what is unloaded is refused until it is loaded again."""
    one = {"x": np.array([[1]], np.int64)}
    with grpc.insecure_channel(stack.address("gateway")) as channel:
        stub = GRPCInferenceServiceStub(channel)
        stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="double"), timeout=30)
        with pytest.raises(grpc.RpcError, match="no model 'nope'"):
            stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="nope"), timeout=10)
        with pytest.raises(grpc.RpcError, match="no model 'nope'"):
            stub.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name="nope"), timeout=10)
        stub.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name="double"), timeout=30)
        with pytest.raises(NotFoundError, match="headrace load double"):
            client.infer("double", one)
        index = stub.RepositoryIndex(pb.RepositoryIndexRequest(), timeout=10).models
        assert {model.state for model in index if model.name == "double"} == {"UNAVAILABLE"}
        assert {model.reason for model in index if model.name == "double"} == {"unloaded"}
        stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="double"), timeout=60)
        assert client.infer("double", one).outputs["y"][0, 0] == 2
        assert stub.ModelReady(pb.ModelReadyRequest(name="add_one"), timeout=10).ready
