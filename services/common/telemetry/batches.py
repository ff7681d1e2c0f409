"""A batch's spans at the worker: one for the batch, and for each sampled request what it waited for."""

from collections.abc import Sequence
from dataclasses import dataclass

from opentelemetry.trace import SpanKind

from services.common.telemetry.sampling import TraceParent, parse
from services.common.telemetry.spans import SpanRecord, SpanWriter, Value


@dataclass(frozen=True, slots=True)
class TracedRequest:
    """One sampled request of a batch; times are Unix nanoseconds.

    Attributes:
        traceparent: from its WorkRequest.
        accepted_ns, received_ns: when the gateway and this worker got it.
        error: why it failed; empty: it was answered.
    """

    traceparent: str
    accepted_ns: int
    received_ns: int
    error: str = ""


@dataclass(frozen=True, slots=True)
class StageRun:
    """One step of an ensemble's run; times are nanoseconds, the start's since the Unix epoch."""

    model: str
    version: int
    start_ns: int
    compute_ns: int


@dataclass(frozen=True, slots=True)
class Batch:
    """One run of a model; times are Unix nanoseconds.

    Attributes:
        rows, requests: its size, unsampled requests included.
        start_ns, end_ns: from the first decoding to the last encoding.
        compute_start_ns, compute_ns: the model's own run; compute_ns 0: it never ran.
        system: "headrace" (embedded) or "rabbitmq"; empty: there was no queue.
        stages: an ensemble's steps.
    """

    model: str
    version: int
    queue: str
    rows: int
    requests: int
    start_ns: int
    end_ns: int
    compute_start_ns: int = 0
    compute_ns: int = 0
    system: str = "headrace"
    stages: Sequence[StageRun] = ()


def record_batch(writer: SpanWriter | None, requests: Sequence[TracedRequest], batch: Batch) -> None:
    """Writes the spans of a batch; returns at once where nothing is sampled or exported.

    publish QUEUE (the gateway's)
    ├── queue                   acceptance → this worker; beside `process`, which begins where it ends
    └── process QUEUE           this worker → answer
        ├── wait                for the device, for company, for the model to load
        └── batch MODEL         one a batch, below its first sampled request, linked to all of them
            └── compute
                └── stage MODEL    of an ensemble, one for each step
    """
    if writer is None or not requests:
        return
    traced = [
        (request, parent)
        for request in requests
        if (parent := parse(request.traceparent)) is not None and parent.sampled
    ]
    if not traced:
        return
    processes = [writer.child(parent) for _, parent in traced]
    run = writer.child(processes[0])
    for (request, parent), me in zip(traced, processes, strict=True):
        _record_request(writer, request, parent=parent, me=me, batch=batch, run=run)
    _record_run(writer, run, processes, batch)


def _record_request(
    writer: SpanWriter, request: TracedRequest, *, parent: TraceParent, me: TraceParent, batch: Batch, run: TraceParent
) -> None:
    if batch.system:
        accepted = min(request.accepted_ns, request.received_ns)  # the hosts' clocks may differ
        writer.write(
            SpanRecord("queue", SpanKind.INTERNAL, writer.child(parent), parent, accepted, request.received_ns)
        )
    attributes = _model(batch)
    if batch.system:
        attributes |= {
            "messaging.system": batch.system,
            "messaging.operation.type": "process",
            "messaging.operation.name": "process",
            "messaging.destination.name": batch.queue,
        }
    writer.write(
        SpanRecord(
            f"process {batch.queue or batch.model}",
            SpanKind.CONSUMER if batch.system else SpanKind.INTERNAL,
            me,
            parent,
            request.received_ns,
            batch.end_ns,
            attributes,
            # The batch of a batch-mate's trace is found by this link.
            links=[run] if run.trace_id != me.trace_id else (),
            error=request.error,
        )
    )
    writer.write(SpanRecord("wait", SpanKind.INTERNAL, writer.child(me), me, request.received_ns, batch.start_ns))


def _record_run(writer: SpanWriter, run: TraceParent, processes: list[TraceParent], batch: Batch) -> None:
    writer.write(
        SpanRecord(
            f"batch {batch.model}",
            SpanKind.INTERNAL,
            run,
            processes[0],
            batch.start_ns,
            batch.end_ns,
            _model(batch),
            links=processes,
        )
    )
    if batch.compute_ns:
        end_ns, compute = batch.compute_start_ns + batch.compute_ns, writer.child(run)
        writer.write(SpanRecord("compute", SpanKind.INTERNAL, compute, run, batch.compute_start_ns, end_ns))
        for stage in batch.stages:
            _record_stage(writer, compute, stage)


def _record_stage(writer: SpanWriter, compute: TraceParent, stage: StageRun) -> None:
    attributes: dict[str, Value] = {
        "headrace.model.name": stage.model,
        "headrace.model.version": stage.version,
    }
    end_ns = stage.start_ns + stage.compute_ns
    me = writer.child(compute)
    writer.write(SpanRecord(f"stage {stage.model}", SpanKind.INTERNAL, me, compute, stage.start_ns, end_ns, attributes))


def _model(batch: Batch) -> dict[str, Value]:
    return {
        "headrace.model.name": batch.model,
        "headrace.model.version": batch.version,
        "headrace.batch.rows": batch.rows,
        "headrace.batch.requests": batch.requests,
    }
