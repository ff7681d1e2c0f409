"""From a delivery to jobs: envelopes opened, the expired dropped, the suspicious set aside."""

import logging
import time
from collections.abc import Hashable
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from headrace.inference.grpc_service_pb2 import ModelInferRequest
from headrace.v1.model_pb2 import ModelSpec
from headrace.v1.work_pb2 import Envelope, WorkRequest
from services.common.broker.port import Delivery
from services.worker.execution import Job
from services.worker.replies.link import Link
from services.worker.replies.links import Links
from services.worker.replies.ticket import Ticket

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Held:
    """One request in hand, with whom to answer and what to settle.

    Attributes:
        suspicious: it may have been run before.
        background: callers go first.
    """

    work: WorkRequest
    ticket: Ticket
    link: Link
    received_unix_us: int
    suspicious: bool
    background: bool
    job: Job | None = None

    def parse(self, body: bytes, *, batched: bool) -> None:
        """Makes the job; it counts as one row where the model has no batch axis. Raises DecodeError."""
        request = ModelInferRequest.FromString(body)
        rows = request.inputs[0].shape[0] if batched and request.inputs and request.inputs[0].shape else 1
        work = self.work
        times = work.accepted_unix_us, self.received_unix_us
        self.job = Job(work.id, request, rows, *times, work.traceparent, self.background)

    def seconds_left(self) -> float:
        """Until nobody waits any more."""
        return self.work.deadline_unix_us / 1e6 - time.time()


def opened(delivery: Delivery, links: Links) -> tuple[Envelope, Link] | None:
    """The envelope and the link to its gateway; None if it cannot be read: then it goes to the dead letters."""
    try:
        return Envelope.FromString(delivery.message.body), links.to(delivery.message.reply_to)
    except (DecodeError, ValueError) as error:
        log.warning("a message that is not an envelope was rejected: %s", error)
        delivery.reject()
        return None


def batch_shape(spec: ModelSpec) -> "ShapeOf":
    """What keeps requests of a model apart: the sizes of free axes, unless padding evens them out."""
    free = not spec.batching.padding and any(-1 in tensor.shape[1:] for tensor in spec.inputs)
    optional = any(tensor.optional for tensor in spec.inputs)
    return ShapeOf(free, optional)


@dataclass(frozen=True, slots=True)
class ShapeOf:
    """Computes the key of a request; models of fixed shapes need none."""

    free: bool
    optional: bool

    def __call__(self, request: ModelInferRequest) -> Hashable:
        if self.free:
            return tuple(sorted((tensor.name, tuple(tensor.shape[1:])) for tensor in request.inputs))
        if self.optional:
            return tuple(sorted(tensor.name for tensor in request.inputs))
        return None
