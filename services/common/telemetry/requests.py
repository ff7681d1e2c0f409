"""A request's trace at the gateway: the server span and its publishes."""

import time

from opentelemetry.trace import SpanKind

from services.common.telemetry.sampling import TokenBucket, TraceParent, parse
from services.common.telemetry.spans import SpanRecord, SpanWriter, Value

MODEL_INFER = "inference.GRPCInferenceService/ModelInfer"
# The codes that are the server's fault, as OpenTelemetry has it for server spans.
_SERVER_FAULTS = {2, 4, 12, 13, 14, 15}


class RequestTrace:
    """One sampled request. Exists only for those; all others are None to their handlers.

    Attributes:
        traceparent: what goes into WorkRequest.traceparent: the context of the publish span where the request is
            queued, of the server span where it is not.
        trace_id: 32 hex digits, for logs.
    """

    __slots__ = (
        "_method",
        "_parent",
        "_published",
        "_server",
        "_start_ns",
        "_work",
        "_writer",
        "trace_id",
        "traceparent",
    )

    def __init__(
        self, writer: SpanWriter | None, parent: TraceParent | None, method: str, start_ns: int, *, queued: bool
    ) -> None:
        self._writer = writer
        self._parent = parent
        self._method = method
        self._start_ns = start_ns
        self._published = False
        if writer is None:
            assert parent is not None
            self._server = self._work = parent
        else:
            self._server = writer.child(parent) if parent else writer.root()
            self._work = writer.child(self._server) if queued else self._server
        self.traceparent = str(self._work)
        self.trace_id = f"{self._server.trace_id:032x}"

    def published(self, queue: str, count: int, start_ns: int, end_ns: int, *, system: str = "headrace") -> None:
        """The request went to the broker in a message of `count` requests; times are Unix nanoseconds.

        A re-publish is a further span; workers' spans hang below the first.
        """
        if self._writer is None:
            return
        again, self._published = self._published, True
        attributes: dict[str, Value] = {
            "messaging.system": system,
            "messaging.operation.type": "send",
            "messaging.operation.name": "publish",
            "messaging.destination.name": queue,
            "messaging.batch.message_count": count,
        }
        if again:
            attributes["headrace.republished"] = True
        me = self._writer.child(self._server) if again else self._work
        self._writer.write(
            SpanRecord(f"publish {queue}", SpanKind.PRODUCER, me, self._server, start_ns, end_ns, attributes)
        )

    def end(
        self, code: int = 0, *, model: str = "", version: int = 0, tenant: str = "", error: str = "", end_ns: int = 0
    ) -> None:
        """The caller has its answer: writes the server span. `code` is a google.rpc.Code; call it once."""
        if self._writer is None:
            return
        service, _, method = self._method.rpartition("/")
        attributes: dict[str, Value] = {
            "rpc.system": "grpc",
            "rpc.service": service,
            "rpc.method": method,
            "rpc.grpc.status_code": code,
        }
        if model:
            attributes |= {"headrace.model.name": model, "headrace.model.version": version}
        if tenant:
            attributes["headrace.tenant"] = tenant
        fault = (error or f"code {code}") if code in _SERVER_FAULTS else ""
        self._writer.write(
            SpanRecord(
                self._method,
                SpanKind.SERVER,
                self._server,
                self._parent,
                self._start_ns,
                end_ns or time.time_ns(),
                attributes,
                error=fault,
            )
        )


class RequestSampler:
    """Decides at the door which requests are traced."""

    def __init__(self, writer: SpanWriter | None, traces_per_second: float) -> None:
        self._writer = writer
        self._bucket = TokenBucket(traces_per_second)

    def begin(self, traceparent: str | None, method: str = MODEL_INFER, *, queued: bool = True) -> RequestTrace | None:
        """The request's trace if it is sampled; None, at the cost of a few comparisons, if not.

        Where this process exports nothing a caller's sampled context is passed on as it came.

        Args:
            traceparent: the caller's header, if any.
            queued: the request will be published; otherwise it is run in this process.
        """
        if traceparent and (parent := parse(traceparent)) is not None:
            if not parent.sampled:
                return None
            return RequestTrace(self._writer, parent, method, time.time_ns(), queued=queued)
        if self._writer is None or not self._bucket.take(time.monotonic()):
            return None
        return RequestTrace(self._writer, None, method, time.time_ns(), queued=queued)
