"""What leaves the process: spans and metrics to a real OTLP receiver, metrics to a Prometheus scrape."""

import socket
import time
import urllib.request
from collections.abc import Iterator

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from services.common.settings import ServiceSettings
from services.common.telemetry.batches import Batch, TracedRequest
from services.common.telemetry.instruments import GatewayInstruments, WorkerInstruments
from services.common.telemetry.requests import RequestTrace
from services.common.telemetry.setup import FLUSH_SECONDS, Telemetry, start
from tests.support.collector import Received, collecting

QUEUE = "headrace.digits.3"
CLIENT_TRACE, CLIENT_SPAN = "a1" * 16, "b2" * 8
FROM_CLIENT = f"00-{CLIENT_TRACE}-{CLIENT_SPAN}-01"


@pytest.fixture
def collector() -> Iterator[Received]:
    with collecting() as received:
        yield received


def serve_one(telemetry: Telemetry, traceparent: str) -> RequestTrace:
    """A request through the gateway, published in a message of 4."""
    trace = telemetry.begin_request(traceparent)
    assert trace is not None
    now = time.time_ns()
    trace.published(QUEUE, 4, now, now + 1000)
    return trace


def run_batch(worker: Telemetry, traces: list[RequestTrace], error: str = "") -> None:
    now = time.time_ns()
    requests = [TracedRequest(trace.traceparent, now - 3000, now - 2000, error) for trace in traces]
    worker.record_batch(requests, Batch("digits", 3, QUEUE, 8, 4, now, now + 5000, now + 1000, 3000))


def test_one_tree_from_the_client_to_compute(collector: Received) -> None:
    settings = ServiceSettings(otlp=collector.endpoint, traces_per_second=5)
    with start("gateway", "g1", settings) as gateway, start("worker", "w1", settings) as worker:
        followed = serve_one(gateway, FROM_CLIENT)
        rooted = serve_one(gateway, "")
        run_batch(worker, [followed, rooted])
        followed.end(0, model="digits", version=3)
        rooted.end(13, model="digits", version=3, error="the model raised")

    server = collector.one("inference.GRPCInferenceService/ModelInfer", CLIENT_TRACE)
    assert server.parent_span_id.hex() == CLIENT_SPAN
    assert server.kind == Span.SPAN_KIND_SERVER
    parents = [("publish " + QUEUE, server), ("process " + QUEUE, None), ("batch digits", None), ("compute", None)]
    above = server
    for name, _ in parents:
        span = collector.one(name, CLIENT_TRACE)
        assert span.parent_span_id == above.span_id, name
        above = span
    process = collector.one("process " + QUEUE, CLIENT_TRACE)
    assert process.kind == Span.SPAN_KIND_CONSUMER
    assert collector.one("wait", CLIENT_TRACE).parent_span_id == process.span_id
    publish = collector.one("publish " + QUEUE, CLIENT_TRACE)
    assert publish.kind == Span.SPAN_KIND_PRODUCER
    assert collector.one("queue", CLIENT_TRACE).parent_span_id == publish.span_id
    attributes = {item.key: item.value for item in publish.attributes}
    assert attributes["messaging.destination.name"].string_value == QUEUE
    assert attributes["messaging.batch.message_count"].int_value == 4
    assert {service for service, _ in collector.spans} == {"headrace-gateway", "headrace-worker"}

    # The batch is linked to both requests, and the other trace's request to the batch.
    (batch,) = collector.named("batch digits")
    mate = collector.one("process " + QUEUE, rooted.trace_id)
    assert {link.span_id for link in batch.links} == {process.span_id, mate.span_id}
    assert [link.span_id for link in mate.links] == [batch.span_id]
    failed = collector.one("inference.GRPCInferenceService/ModelInfer", rooted.trace_id)
    assert (failed.parent_span_id, failed.status.message) == (b"", "the model raised")


def test_what_is_not_sampled_leaves_nothing(collector: Received) -> None:
    with start("gateway", "g1", ServiceSettings(otlp=collector.endpoint, traces_per_second=0)) as telemetry:
        assert telemetry.begin_request("") is None
        assert telemetry.begin_request(FROM_CLIENT[:-1] + "0") is None
        telemetry.record_batch([], Batch("digits", 3, QUEUE, 1, 1, 1, 2))
        telemetry.record_batch([TracedRequest("", 1, 2)], Batch("digits", 3, QUEUE, 1, 1, 1, 2))
    assert collector.spans == []


def test_without_a_queue_the_batch_hangs_below_the_server_span(collector: Received) -> None:
    with start("single", "s1", ServiceSettings(otlp=collector.endpoint)) as telemetry:
        trace = telemetry.begin_request(FROM_CLIENT, queued=False)
        assert trace is not None
        now = time.time_ns()
        telemetry.record_batch(
            [TracedRequest(trace.traceparent, now, now)], Batch("digits", 3, "", 1, 1, now, now, system="")
        )
        trace.end()
    server = collector.one("inference.GRPCInferenceService/ModelInfer", CLIENT_TRACE)
    assert collector.one("process digits", CLIENT_TRACE).parent_span_id == server.span_id
    assert collector.named("queue") == []


def test_a_republish_is_a_span_of_its_own(collector: Received) -> None:
    with start("gateway", "g1", ServiceSettings(otlp=collector.endpoint)) as telemetry:
        trace = serve_one(telemetry, FROM_CLIENT)
        trace.published(QUEUE, 1, 5, 6)
        trace.end(14)
    first, second = collector.named("publish " + QUEUE)
    assert first.parent_span_id == second.parent_span_id
    assert first.span_id.hex() == trace.traceparent.split("-")[2]
    assert second.span_id != first.span_id


def test_metrics_go_to_otlp_too(collector: Received) -> None:
    with start("gateway", "g1", ServiceSettings(otlp=collector.endpoint)) as telemetry:
        model = GatewayInstruments(telemetry.ledger).of("digits", 3)
        model.began()
        model.finished(0, 0.004)
    assert {"rpc.server.call.duration", "headrace.requests", "process.memory.usage"} <= collector.metrics


def test_prometheus_serves_the_metrics_and_stops_with_the_service() -> None:
    with start("worker", "w1", ServiceSettings(metrics="127.0.0.1:0")) as telemetry:
        gateway = GatewayInstruments(telemetry.ledger)
        idle = gateway.of("idle", 1)
        model = gateway.of("digits", 3)
        model.began()
        model.finished(0, 0.004)
        model.queue_full.add()
        gateway.claim("run")
        worker = WorkerInstruments(telemetry.ledger).of("digits", 3)
        worker.batch(8, 0.003)
        worker.waited(0.001, 0.0)
        worker.loaded(True)
        address = telemetry.metrics_address
        text = scrape(address)
        idle.began()
        assert 'headrace_requests_in_flight{headrace_model_name="idle",headrace_model_version="1"} 1.0' in scrape(
            address
        )
    of = 'headrace_model_name="digits",headrace_model_version="3"'
    for line in (
        f'headrace_requests_total{{{of},rpc_response_status_code="OK"}} 1.0',
        f"headrace_queue_full_total{{{of}}} 1.0",
        'headrace_claims_total{headrace_claim_verdict="run"} 1.0',
        f'headrace_batch_rows_bucket{{{of},le="8.0"}} 1.0',
        f'headrace_batch_rows_bucket{{{of},le="4.0"}} 0.0',
        f"headrace_batch_compute_duration_seconds_sum{{{of}}} 0.003",
        f"headrace_models_loaded{{{of}}} 1.0",
    ):
        assert line in text
    assert "process_memory_usage_bytes" in text
    assert 'service_name="headrace-worker"' in text
    host, port = address.split(":")
    with socket.socket() as probe:
        assert probe.connect_ex((host, int(port))) != 0


def test_an_address_in_use_is_refused_with_what_to_set() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(OSError, match="HEADRACE_METRICS"), start("g", "1", ServiceSettings(metrics=address)):
            pass


def test_a_collector_that_is_away_does_not_hold_up_the_exit() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unanswering:
        settings = ServiceSettings(otlp=f"http://127.0.0.1:{unanswering.getsockname()[1]}")
        with start("gateway", "g1", settings) as telemetry:
            serve_one(telemetry, "").end(0)
            leaving = time.monotonic()
    assert time.monotonic() - leaving < FLUSH_SECONDS + 1.5


def scrape(address: str) -> str:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as response:
        return str(response.read(), "utf-8")
