"""A trace collector small enough for an example: takes spans by OTLP/gRPC and draws each trace as a tree.

python examples/tracing.py [--port 4317]      beside it: headrace up --otlp http://127.0.0.1:4317
"""

import argparse
import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from grpc import aio
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import (
    MetricsServiceServicer,
    add_MetricsServiceServicer_to_server,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from rich.console import Console
from rich.tree import Tree

# Processes send what they have every five seconds; a trace to which nothing has come for longer is complete.
QUIET_SECONDS = 6.0


@dataclass(frozen=True, slots=True)
class Span:
    """One finished span; times are Unix nanoseconds."""

    service: str
    name: str
    trace_id: bytes
    span_id: bytes
    parent_id: bytes
    start_ns: int
    end_ns: int


@dataclass(slots=True)
class RootSpan:
    """The caller's own span: its `traceparent` goes with the call and makes the services record theirs below it."""

    trace_id: bytes = field(default_factory=lambda: secrets.token_bytes(16))
    span_id: bytes = field(default_factory=lambda: secrets.token_bytes(8))
    start_ns: int = field(default_factory=time.time_ns)

    @property
    def traceparent(self) -> str:
        """W3C trace context, sampled."""
        return f"00-{self.trace_id.hex()}-{self.span_id.hex()}-01"

    def end(self, name: str) -> Span:
        """The span, ended now."""
        return Span("client", name, self.trace_id, self.span_id, b"", self.start_ns, time.time_ns())


class Collector(TraceServiceServicer, MetricsServiceServicer):
    """Keeps the spans that are sent to it, and takes metrics without a word."""

    def __init__(self) -> None:
        self.endpoint = ""
        self._spans: list[Span] = []
        self._arrived = asyncio.Condition()

    async def Export(  # noqa: N802  # both services call it so
        self, request: ExportTraceServiceRequest | ExportMetricsServiceRequest, context: object
    ) -> ExportTraceServiceResponse | ExportMetricsServiceResponse:
        """Either service's one method."""
        if isinstance(request, ExportMetricsServiceRequest):
            return ExportMetricsServiceResponse()
        async with self._arrived:
            self._spans += _spans(request)
            self._arrived.notify_all()
        return ExportTraceServiceResponse()

    async def trace(self, trace_id: bytes, names: set[str], patience: float) -> list[Span]:
        """The spans of a trace, once spans of all these names are there or `patience` seconds have passed."""

        def mine() -> list[Span]:
            return [span for span in self._spans if span.trace_id == trace_id]

        async with self._arrived:
            # After the timeout, what has come is shown: some of it is better than nothing.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await self._arrived.wait_for(lambda: names <= {span.name for span in mine()})
            return mine()

    async def traces(self, quiet: float) -> AsyncIterator[list[Span]]:
        """Each trace, once nothing has been added to it for `quiet` seconds; then it is forgotten here."""
        counts: dict[bytes, tuple[int, float]] = {}
        while True:
            await asyncio.sleep(quiet / 10)
            now, gathered = time.monotonic(), dict[bytes, list[Span]]()
            for span in self._spans:
                gathered.setdefault(span.trace_id, []).append(span)
            for trace_id, spans in gathered.items():
                count, since = counts.get(trace_id, (0, now))
                counts[trace_id] = (len(spans), since if count == len(spans) else now)
                if count == len(spans) and now - since > quiet:
                    self._spans = [span for span in self._spans if span.trace_id != trace_id]
                    del counts[trace_id]
                    yield spans


@asynccontextmanager
async def collecting(port: int = 0) -> AsyncIterator[Collector]:
    """A collector on a port, a free one by default; its `endpoint` is what HEADRACE_OTLP wants."""
    collector, server = Collector(), aio.server()
    add_TraceServiceServicer_to_server(collector, server)  # type: ignore[no-untyped-call]
    add_MetricsServiceServicer_to_server(collector, server)  # type: ignore[no-untyped-call]
    collector.endpoint = f"http://127.0.0.1:{server.add_insecure_port(f'127.0.0.1:{port}')}"
    await server.start()
    try:
        yield collector
    finally:
        await server.stop(0.5)


async def watch(port: int) -> None:
    """Draws every trace that comes, until it is interrupted."""
    console = Console()
    async with collecting(port) as collector:
        console.print(f"takes traces at {collector.endpoint}; Ctrl-C ends it", highlight=False)
        async for spans in collector.traces(QUIET_SECONDS):
            root, *others = sorted(spans, key=lambda span: span.start_ns)
            console.print(draw(root, others), highlight=False, no_wrap=True, overflow="ignore", crop=False)


def draw(root: Span, spans: list[Span]) -> Tree:
    """The trace as a tree: what ran, where, when after the root's start, and how long."""
    tree = Tree(_line(root, root))
    waiting, branches = sorted(spans, key=lambda span: span.start_ns), {root.span_id: tree}
    while waiting:
        reachable = [span for span in waiting if span.parent_id in branches]
        # Spans whose parents did not arrive hang below the root rather than get lost.
        for span in reachable or waiting:
            branches[span.span_id] = branches.get(span.parent_id, tree).add(_line(span, root))
        waiting = [span for span in waiting if span.span_id not in branches]
    return tree


def _line(span: Span, root: Span) -> str:
    after, took = (span.start_ns - root.start_ns) / 1e6, (span.end_ns - span.start_ns) / 1e6
    return f"{span.name} [dim]{span.service}[/dim]  {took:.3f} ms [dim]from {after:.3f}[/dim]"


def _spans(request: ExportTraceServiceRequest) -> list[Span]:
    found: list[Span] = []
    for resource in request.resource_spans:
        attributes = {item.key: item.value.string_value for item in resource.resource.attributes}
        found += [
            Span(
                attributes.get("service.name", ""),
                span.name,
                span.trace_id,
                span.span_id,
                span.parent_span_id,
                span.start_time_unix_nano,
                span.end_time_unix_nano,
            )
            for scope in resource.scope_spans
            for span in scope.spans
        ]
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=4317)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(watch(parser.parse_args().port))
