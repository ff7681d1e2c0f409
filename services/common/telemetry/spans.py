"""Spans written after the fact: times and ids are known first, the OpenTelemetry object exists only for its export.

A request's context must travel before its spans are done, so ids are drawn ahead and handed to the SDK when the span
is made. What is not sampled never gets here.
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    Tracer,
    set_span_in_context,
)

from services.common.telemetry.sampling import TraceParent

Value = str | int | float | bool


@dataclass(frozen=True, slots=True)
class SpanRecord:
    """One finished span.

    Attributes:
        me: its trace and span id.
        parent: its parent's, in the same trace; None for a root.
        start_ns, end_ns: Unix time.
        links: other spans that it has to do with.
        error: what went wrong; empty: nothing.
    """

    name: str
    kind: SpanKind
    me: TraceParent
    parent: TraceParent | None
    start_ns: int
    end_ns: int
    attributes: Mapping[str, Value] = field(default_factory=dict)
    links: Sequence[TraceParent] = ()
    error: str = ""


class ReservedIds(RandomIdGenerator):
    """Gives the SDK the ids that were drawn before; random ones otherwise."""

    def __init__(self) -> None:
        self._reserved = threading.local()

    def reserve(self, me: TraceParent) -> None:
        """The next span made on this thread is `me`."""
        self._reserved.me = me

    def generate_trace_id(self) -> int:
        """Asked for roots only, before the span id."""
        me: TraceParent | None = getattr(self._reserved, "me", None)
        return me.trace_id if me else super().generate_trace_id()

    def generate_span_id(self) -> int:
        """Asked for once a span."""
        me: TraceParent | None = getattr(self._reserved, "me", None)
        self._reserved.me = None
        return me.span_id if me else super().generate_span_id()


class SpanWriter:
    """Writes records through a tracer whose ids come from `ids`. Safe from any thread."""

    def __init__(self, tracer: Tracer, ids: ReservedIds) -> None:
        self._tracer = tracer
        self._ids = ids
        self._random = RandomIdGenerator()

    def child(self, parent: TraceParent) -> TraceParent:
        """Ids for a span in the parent's trace."""
        return TraceParent(parent.trace_id, self._random.generate_span_id(), sampled=True)

    def root(self) -> TraceParent:
        """Ids for the first span of a new trace."""
        return TraceParent(self._random.generate_trace_id(), self._random.generate_span_id(), sampled=True)

    def write(self, record: SpanRecord) -> None:
        """Hands the span to the exporter's queue; never blocks, drops it where the queue is full."""
        parent = NonRecordingSpan(_context(record.parent) if record.parent else SpanContext(0, 0, is_remote=False))
        self._ids.reserve(record.me)
        span = self._tracer.start_span(
            record.name,
            set_span_in_context(parent),
            record.kind,
            dict(record.attributes),
            [Link(_context(link)) for link in record.links],
            record.start_ns,
        )
        if record.error:
            span.set_status(Status(StatusCode.ERROR, record.error))
        span.end(max(record.start_ns, record.end_ns))


def _context(ids: TraceParent) -> SpanContext:
    return SpanContext(ids.trace_id, ids.span_id, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))
