"""A running stack seen through the tools that people watch it with: a real Prometheus reads every process and answers
every query of the dashboards and alerts; a real OpenTelemetry collector takes a trace from the client to the token.
"""

import asyncio
import json
from collections.abc import Iterator

import numpy as np
import pytest
from grpc import aio
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from headrace import Client
from headrace.client.registry import RegistryClient
from headrace.v1 import text_generation_pb2 as pb
from headrace.v1.text_generation_pb2_grpc import TextGenerationServiceStub
from tests.e2e.conftest import ready
from tests.support import models
from tests.support.collector import Received, collecting
from tests.support.llm_models import save_model
from tests.support.prometheus import Prometheus, prometheus
from tests.support.promql import OBSERVABILITY, Query, needs, queries
from tests.support.rotel import rotel_collector
from tests.support.stack import RunningStack, running_stack, wait_until

ROW = {"x": np.zeros((1, 16), np.float32)}
SERVER = "headrace.v1.TextGenerationService/GenerateStream"
PUBLISH, PROCESS = "publish headrace.words.1", "process headrace.words.1"
# Child → parent; "ask" is the caller's own span.
TREE = {
    "ask": "",
    SERVER: "ask",
    PUBLISH: SERVER,
    "queue": PUBLISH,
    PROCESS: PUBLISH,
    "wait": PROCESS,
    "batch words": PROCESS,
    "compute": "batch words",
}
# Series that come with what did not happen here: a version on trial.
RARE = {"headrace_shadows_total"}


@pytest.fixture(scope="module")
def received() -> Iterator[Received]:
    """What Rotel hands on."""
    with collecting() as end:
        yield end


@pytest.fixture(scope="module")
def collector(received: Received, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the stack and its callers send their spans."""
    with rotel_collector(tmp_path_factory.mktemp("rotel"), received.endpoint) as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def stack(collector: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """With an autoscaler, a model of tensors and one of language."""
    folder = tmp_path_factory.mktemp("dashboards")
    llama = save_model(folder / "words")
    (llama / "model.yaml").write_text("llm: {kv_cache_memory: 16MiB, dtype: float32}\n")
    variables = {"HEADRACE_OTLP": collector, "HEADRACE_TRACES_PER_SECOND": "0"}
    with running_stack(folder / "data", workers="1..1", environment=variables) as up:
        with RegistryClient(up.address("registry")) as registry, Client(up.address("gateway")) as client:
            registry.push("add_one", models.add_one(folder / "add_one.onnx"))
            registry.push("words", llama)
            wait_until(lambda: ready(client, "add_one") and ready(client, "words"), "the models", 60)
        yield up


@pytest.fixture(scope="module")
def seen(stack: RunningStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A Prometheus that has read every process before and after some traffic."""
    jobs: dict[str, list[str]] = {}
    for name in stack.processes():
        jobs.setdefault("headrace-" + name.split("-")[0], []).append(stack.metrics(name))
    with prometheus(tmp_path_factory.mktemp("prometheus"), jobs) as reader, Client(stack.address("gateway")) as client:
        everything = len(stack.processes())
        wait_until(lambda: len(reader.query("up == 1")) == everything, "Prometheus to read every process")

        def traffic(count: int) -> None:
            for _ in range(count):
                client.infer("add_one", ROW, timeout=30)
                client.generate("words", "the wheel turns", max_tokens=4, ignore_eos=True, timeout=30)

        # The first of its kind makes a series, the next ones make it rise: a rate needs two readings, of each process.
        counters = ("gen_ai_server_request_duration_seconds_count", "headrace_batch_rows_count")
        traffic(1)
        wait_until(lambda: all(map(reader.query, counters)), "the first to be read")
        traffic(3)
        wait_until(lambda: all(counted(reader, f"sum({name})") == 4 for name in counters), "all to be read")
        wait_until(lambda: bool(reader.query("headrace_autoscaler_active == 1")), "an active autoscaler")
        yield reader


def counted(reader: Prometheus, expression: str) -> float:
    (sample,) = reader.query(expression)
    return float(sample["value"][1])


@pytest.mark.parametrize("query", queries(), ids=str)
def test_a_query_is_answered(query: Query, seen: Prometheus) -> None:
    samples = seen.query(query.expression)
    for metric in needs(query).selected.keys() - RARE:
        assert seen.query(metric), f"this stack does not export {metric}"
    if query.where.startswith("headrace-") and not needs(query).selected.keys() & RARE and "!=" not in query.expression:
        assert samples, "a panel without a line"


def test_nothing_is_wrong_with_a_healthy_stack(seen: Prometheus) -> None:
    firing = [query.where for query in queries() if not query.where.startswith("headrace-")]
    assert [query.where for query in queries() if query.where in firing and seen.query(query.expression)] == []


def test_the_models_of_the_choice_are_those_that_serve(seen: Prometheus) -> None:
    board = json.loads((OBSERVABILITY / "grafana" / "dashboards" / "headrace-requests.json").read_text())
    (choice,) = [each["query"] for each in board["templating"]["list"] if each["name"] == "model"]
    metric, label = choice.removeprefix("label_values(").removesuffix(")").split(", ")
    assert {sample["metric"][label] for sample in seen.query(metric)} == {"add_one", "words"}


async def traced_generation(stack: RunningStack, collector: str) -> tuple[str, int]:
    """One stream of tokens below a span that the caller makes with OpenTelemetry's SDK: its trace, and its tokens."""
    provider = TracerProvider(resource=Resource.create({"service.name": "caller"}), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(collector, insecure=True)))
    carrier: dict[str, str] = {}
    with provider.get_tracer("caller").start_as_current_span("ask") as span:
        TraceContextTextMapPropagator().inject(carrier)
        async with aio.insecure_channel(stack.address("gateway")) as channel:
            sampling = pb.SamplingParams(max_tokens=6, ignore_eos=True)
            request = pb.GenerateRequest(model="words", text="the wheel turns", sampling=sampling)
            stub = TextGenerationServiceStub(channel)
            answers = stub.GenerateStream(request, metadata=tuple(carrier.items()), timeout=30)
            tokens = sum([len(answer.chunk.token_ids) async for answer in answers])
    provider.shutdown()
    return f"{span.get_span_context().trace_id:032x}", tokens


def test_a_trace_goes_from_the_caller_to_the_tokens(stack: RunningStack, collector: str, received: Received) -> None:
    trace_id, tokens = asyncio.run(traced_generation(stack, collector))
    assert tokens == 6

    def spans() -> dict[str, tuple[str, Span]]:
        return {span.name: (who, span) for who, span in received.spans if span.trace_id.hex() == trace_id}

    wait_until(lambda: spans().keys() >= TREE.keys(), "all spans of the trace")
    found = spans()
    ids = {name: span.span_id.hex() for name, (_, span) in found.items()} | {"": ""}
    assert {name: span.parent_span_id.hex() for name, (_, span) in found.items()} == {
        child: ids[parent] for child, parent in TREE.items()
    }
    assert {who for who, _ in found.values()} == {"caller", "headrace-gateway", "headrace-worker"}
    # Tokens come while the engine computes, and the caller has them before his call ends.
    assert found["ask"][1].start_time_unix_nano <= found["compute"][1].start_time_unix_nano
    assert found["compute"][1].end_time_unix_nano <= found["ask"][1].end_time_unix_nano


def test_the_collector_gets_the_metrics_too(stack: RunningStack, seen: Prometheus, received: Received) -> None:
    wanted = {
        "headrace.requests",
        "headrace.batch.rows",
        "gen_ai.server.time_to_first_token",
        "headrace.autoscaler.workers",
    }
    wait_until(lambda: received.metrics >= wanted, "metrics of gateway, worker and autoscaler")
    assert "Exception while exporting" not in stack.log("autoscaler") + stack.log("worker-1") + stack.log("gateway")
