"""From a delivery to requests in hand, and what of them is not settled yet."""

import asyncio
import logging
import time
from collections.abc import Callable, Hashable
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
        intake: where it came in.
        suspicious: it may have been run before.
        background: callers go first.
    """

    intake: "Intake"
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


class Intake:
    """Opens what a queue delivers to a lane, and keeps its messages until they are settled.

    Args:
        came: called with each envelope, before its requests are taken.
        take: called with each request.
        settled: called when a message is done with, or in other hands.
        ahead: how many requests the queue gives at most before some are settled.

    Attributes:
        stopping: what comes goes back to the queue.
    """

    def __init__(
        self,
        links: Links,
        *,
        came: Callable[[Envelope], None],
        take: Callable[[Held], None],
        settled: Callable[[], None],
        ahead: int,
    ) -> None:
        self.stopping = False
        self._links = links
        self._came = came
        self._take = take
        self._settled = settled
        self._tickets: set[Ticket] = set()
        self._ahead = ahead
        self._unsettled = 0
        self._fewer = asyncio.Event()

    @property
    def short(self) -> bool:
        """The queue gives no more soon unless something is settled."""
        return 4 * self._unsettled >= 3 * self._ahead

    def deliver(self, delivery: Delivery, background: bool) -> None:
        """Opens an envelope and passes on what is in it; one that cannot be read goes to the dead letters."""
        if self.stopping:
            delivery.requeue()
            return
        try:
            envelope, link = Envelope.FromString(delivery.message.body), self._links.to(delivery.message.reply_to)
        except (DecodeError, ValueError) as error:
            log.warning("a message that is not an envelope was rejected: %s", error)
            delivery.reject()
            return
        requests = len(envelope.requests)
        ticket = Ticket(delivery, max(1, requests), lambda ticket: self._done(ticket, link, requests))
        self._unsettled += requests
        self._tickets.add(ticket)
        link.owe()
        self._came(envelope)
        now_us = time.time_ns() // 1000
        for work in envelope.requests:
            suspicious = delivery.redelivered or work.attempt > 0
            self._take(Held(self, work, ticket, link, now_us, suspicious, background))
        if not requests:
            ticket.settle()

    def hand_back(self) -> None:
        """What has not begun goes to other workers."""
        for ticket in [ticket for ticket in self._tickets if not ticket.started]:
            ticket.hand_back()

    async def emptied(self) -> None:
        """Returns once all that was taken is settled or in other hands."""
        while self._tickets:
            self._fewer.clear()
            await self._fewer.wait()

    def _done(self, ticket: Ticket, link: Link, requests: int) -> None:
        self._tickets.discard(ticket)
        self._unsettled -= requests
        link.paid()
        self._fewer.set()
        self._settled()


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
