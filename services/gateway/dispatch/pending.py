"""Every request that this gateway accepted and has not answered. Whatever happens, each leaves it exactly once."""

import asyncio
from dataclasses import dataclass, field

from headrace.v1.fleet_pb2 import QueueDemand
from headrace.v1.reply_pb2 import Reply
from services.common.errors import HeadraceError, PoisonedRequest, QueueFull
from services.common.telemetry.requests import RequestTrace
from services.common.tenants.tenant import Tenant
from services.gateway.dispatch.text_stream import TextStream
from services.gateway.routes import Route


@dataclass(slots=True, eq=False)
class Pending:
    """One accepted request.

    Attributes:
        answer: resolves to the worker's reply, of a generation its last one, or to the error.
        deadline_unix_us, deadline: nobody waits after it, by the wall's and by the event loop's clock.
        attempt: how often it was published again; workers claim what has more than 0.
        published: the broker has confirmed it at least once.
        claims: how many workers were told to run it after something went wrong.
        holder: the worker that claimed it last; of a generation, the one whose tokens count.
        stream: where a generation's tokens go; None for other models.
        rows: how much of a batch it fills.
        level: 1 is first; 0 where the model has no levels.
    """

    id: int
    route: Route
    body: bytes
    accepted_unix_us: int
    deadline_unix_us: int
    trace: RequestTrace | None
    tenant: Tenant | None
    answer: asyncio.Future[Reply]
    attempt: int = 0
    published: bool = False
    claims: int = 0
    holder: str = ""
    deadline: float = 0.0
    stream: TextStream | None = None
    rows: int = 1
    level: int = 0


@dataclass(slots=True)
class PendingTable:
    """Accepted, unanswered requests by id, and how many there are of each route.

    Where there are tenants, a route's limit is each one's own: what one sends fills nobody else's line.
    """

    _by_id: dict[int, Pending] = field(default_factory=dict)
    _count: dict[str, int] = field(default_factory=dict)
    _of_tenant: dict[tuple[str, str], int] = field(default_factory=dict)
    # Every route that was asked for, and how many requests of it were ever admitted.
    _admitted: dict[str, tuple[Route, int]] = field(default_factory=dict)

    def admit(self, pending: Pending) -> None:
        """Takes a request in.

        Raises:
            QueueFull: the route has its `max_requests` admitted and unanswered.
        """
        route, tenant = pending.route, pending.tenant
        total = self._count.get(route.queue, 0)
        count = total if tenant is None else self._of_tenant.get((route.queue, tenant.name), 0)
        if count >= route.max_requests:
            whose = "" if tenant is None else f" of tenant '{tenant.name}'"
            raise QueueFull(
                f"model '{route.name}' has {count} requests{whose} waiting or running, its limit; try again shortly or"
                " raise queue.max_requests in its model.yaml"
            )
        self._count[route.queue] = total + 1
        if tenant is not None:
            self._of_tenant[route.queue, tenant.name] = count + 1
        self._admitted[route.queue] = (route, self._admitted.get(route.queue, (route, 0))[1] + 1)
        self._by_id[pending.id] = pending

    def forget(self, pending: Pending) -> None:
        """Lets a request go, answered or not."""
        if self._by_id.pop(pending.id, None) is not None:
            self._count[pending.route.queue] -= 1
            if pending.tenant is not None:
                self._of_tenant[pending.route.queue, pending.tenant.name] -= 1

    def get(self, request_id: int) -> Pending | None:
        """The request, if it still waits for its answer."""
        pending = self._by_id.get(request_id)
        return None if pending is None or pending.answer.done() else pending

    def count(self, queue: str) -> int:
        """Admitted and unanswered requests of a queue."""
        return self._count.get(queue, 0)

    def demand(self, now_us: int) -> list[QueueDemand]:
        """For each version that was asked for since the start: what came, what is unanswered, and for how long."""
        oldest: dict[str, int] = {}
        for pending in self._by_id.values():
            oldest.setdefault(pending.route.queue, pending.accepted_unix_us)
        demands: dict[tuple[str, int], QueueDemand] = {}
        for queue, (route, accepted) in self._admitted.items():
            # What runs in the background needs workers like everything else.
            name, version = route.name, route.version
            demand = demands.setdefault((name, version), QueueDemand(name=name, version=version))
            demand.accepted += accepted
            demand.in_flight += self.count(queue)
            demand.oldest_ms = max(demand.oldest_ms, (now_us - oldest.get(queue, now_us)) // 1000)
        return list(demands.values())

    def __len__(self) -> int:
        return len(self._by_id)

    def unanswered(self) -> list[Pending]:
        """Everything that still waits, oldest first."""
        return [pending for pending in self._by_id.values() if not pending.answer.done()]

    def claim(self, request_id: int, worker: str, alive: set[str]) -> int:
        """A worker asks to run a request that may have been run before.

        Returns how many claims were granted, this one included, or 0: drop it, because it is answered, cancelled, or
        in the hands of another worker that is `alive`. A request whose holders died `max_attempts` times fails with
        PoisonedRequest instead of taking another worker. A generation that got on since it was claimed last is not
        what kills its workers: its count begins anew.
        """
        pending = self.get(request_id)
        if pending is None or (pending.holder in alive and pending.holder != worker):
            return 0
        if pending.stream is not None and pending.stream.progressed:
            pending.claims, pending.stream.progressed = 0, False
        if pending.claims >= pending.route.max_attempts:
            fail(
                pending,
                PoisonedRequest(
                    f"{pending.claims + 1} workers died while they ran this request; it was given up."
                    " If the input is valid, look at the workers' logs"
                ),
            )
            return 0
        pending.claims += 1
        pending.holder = worker
        return pending.claims

    def held_elsewhere(self, request_id: int, worker: str, alive: set[str]) -> Pending | None:
        """A generation that another worker, one that is `alive`, is running; None if there is no such."""
        pending = self.get(request_id)
        if pending is None or pending.stream is None or pending.holder in {"", worker} or pending.holder not in alive:
            return None
        return pending


def fail(pending: Pending, error: HeadraceError) -> None:
    """Answers a request with an error, unless it is answered."""
    if not pending.answer.done():
        pending.answer.set_exception(error)
