"""What an operator sees of a running stack: one trace through all processes, metrics, JSON logs with the trace's id."""

import json
import secrets
import urllib.request
from collections.abc import Iterator

import numpy as np
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from headrace import Client
from headrace.client.errors import InvalidArgumentError
from headrace.client.registry import RegistryClient
from tests.e2e.conftest import FRONTS, ready
from tests.support import models
from tests.support.collector import Received, collecting
from tests.support.stack import RunningStack, running_stack, wait_until

SERVER, PUBLISH = "inference.GRPCInferenceService/ModelInfer", "publish headrace.add_one.1"
PROCESS = "process headrace.add_one.1"
# Child → parent; "" is the client's own span.
TREE = {
    SERVER: "",
    PUBLISH: SERVER,
    "queue": PUBLISH,
    PROCESS: PUBLISH,
    "wait": PROCESS,
    "batch add_one": PROCESS,
    "compute": "batch add_one",
}
ROW = {"x": np.zeros((1, 16), np.float32)}


@pytest.fixture(scope="module")
def collector() -> Iterator[Received]:
    with collecting() as received:
        yield received


@pytest.fixture(scope="module", params=FRONTS)
def traced(
    request: pytest.FixtureRequest, collector: Received, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningStack]:
    """A stack whose processes export to the collector; only the client begins traces."""
    folder = tmp_path_factory.mktemp(request.param)
    variables = {"HEADRACE_OTLP": collector.endpoint, "HEADRACE_TRACES_PER_SECOND": "0"}
    with running_stack(folder / "data", front=request.param, broker="embedded://", environment=variables) as running:
        with RegistryClient(running.address("registry")) as registry, Client(running.address("gateway")) as client:
            registry.push("add_one", models.add_one(folder / "add_one.onnx"))
            wait_until(lambda: ready(client, "add_one"), "the model")
        yield running


def spans_of(collector: Received, trace_id: str) -> dict[str, tuple[str, Span]]:
    """By name: the service and the span."""
    return {span.name: (service, span) for service, span in collector.spans if span.trace_id.hex() == trace_id}


def test_one_trace_goes_through_every_process(traced: RunningStack, collector: Received) -> None:
    trace_id, span_id = secrets.token_hex(16), secrets.token_hex(8)
    with Client(traced.address("gateway")) as client:
        client.infer("add_one", ROW, timeout=30, traceparent=f"00-{trace_id}-{span_id}-01")
    wait_until(lambda: TREE.keys() <= spans_of(collector, trace_id).keys(), "all spans of the trace")
    found = spans_of(collector, trace_id)
    ids = {name: span.span_id.hex() for name, (_, span) in found.items()} | {"": span_id}
    assert {name: span.parent_span_id.hex() for name, (_, span) in found.items()} == {
        child: ids[parent] for child, parent in TREE.items()
    }
    services = {name: service for name, (service, _) in found.items()}
    assert services[SERVER] == services[PUBLISH] == "headrace-gateway"
    assert services["batch add_one"] == services["compute"] == "headrace-worker"


def test_a_refused_request_ends_its_span_with_the_code(traced: RunningStack, collector: Received) -> None:
    trace_id = secrets.token_hex(16)
    with Client(traced.address("gateway")) as client, pytest.raises(InvalidArgumentError):
        client.infer("add_one", {"x": np.zeros((1, 3), np.float32)}, traceparent=f"00-{trace_id}-{'1' * 16}-01")
    wait_until(lambda: SERVER in spans_of(collector, trace_id), "the server span")
    found = spans_of(collector, trace_id)
    assert set(found) == {SERVER}
    attributes = {item.key: item.value for item in found[SERVER][1].attributes}
    assert attributes["rpc.grpc.status_code"].int_value == 3
    assert attributes["headrace.model.name"].string_value == "add_one"


def test_what_carries_no_context_or_an_unsampled_one_leaves_no_span(traced: RunningStack, collector: Received) -> None:
    unsampled, later = secrets.token_hex(16), secrets.token_hex(16)
    with Client(traced.address("gateway")) as client:
        client.infer("add_one", ROW, timeout=30)
        client.infer("add_one", ROW, timeout=30, traceparent=f"00-{unsampled}-{'1' * 16}-00")
        client.infer("add_one", ROW, timeout=30, traceparent=f"00-{later}-{'1' * 16}-01")
    wait_until(lambda: TREE.keys() <= spans_of(collector, later).keys(), "the later trace")
    assert not spans_of(collector, unsampled)


def test_http_calls_are_traced_too(traced: RunningStack, collector: Received) -> None:
    trace_id = secrets.token_hex(16)
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 16], "data": [0.0] * 16}]}
    asked = urllib.request.Request(
        f"http://{traced.http()}/v2/models/add_one/infer",
        json.dumps(body).encode(),
        {"Content-Type": "application/json", "traceparent": f"00-{trace_id}-{'1' * 16}-01"},
    )
    with urllib.request.urlopen(asked, timeout=30) as answer:
        assert answer.status == 200
    wait_until(lambda: TREE.keys() <= spans_of(collector, trace_id).keys(), "all spans of the trace")


def test_metrics_are_where_up_says_and_count_what_happened(traced: RunningStack) -> None:
    with Client(traced.address("gateway")) as client:
        client.infer("add_one", ROW, timeout=30)
        before = answered(traced)
        for _ in range(5):
            client.infer("add_one", ROW, timeout=30)
        assert answered(traced) == before + 5
    assert 'headrace_batch_rows_count{headrace_model_name="add_one"' in scrape(traced, "worker-1")
    for name in ("broker", "registry"):
        assert "process_memory_usage_bytes" in scrape(traced, name)


def test_logs_are_json_lines_that_name_their_process(traced: RunningStack) -> None:
    lines = [json.loads(line) for line in traced.log("worker-1").splitlines() if line.startswith("{")]
    loaded = [line for line in lines if line["event"].startswith("loaded add_one version 1")]
    assert [(line["service"], line["instance"], line["level"]) for line in loaded] == [("worker", "worker-1", "info")]


def answered(stack: RunningStack) -> float:
    """Requests to add_one that the gateway's metrics say were answered."""
    labels = ('headrace_model_name="add_one"', 'rpc_response_status_code="OK"')
    return sum(
        float(line.rpartition(" ")[2])
        for line in scrape(stack, "gateway").splitlines()
        if line.startswith("headrace_requests_total{") and all(label in line for label in labels)
    )


def scrape(stack: RunningStack, name: str) -> str:
    """The process's Prometheus page."""
    with urllib.request.urlopen(f"http://{stack.metrics(name)}/metrics", timeout=30) as page:
        return str(page.read().decode())
