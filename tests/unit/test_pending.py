"""Accepted requests leave the table exactly once, whatever workers do."""

import asyncio

import pytest

from headrace.v1.model_pb2 import ModelSpec, ModelVersion, QueueSpec
from services.common.errors import PoisonedRequest, QueueFull
from services.gateway.dispatch.pending import Pending, PendingTable
from services.gateway.routes import Route, route_of

ROUTE = route_of(ModelVersion(name="m", version=1, spec=ModelSpec(queue=QueueSpec(max_requests=2, max_attempts=2))))


def pending(number: int, route: Route = ROUTE) -> Pending:
    answer = asyncio.get_running_loop().create_future()
    return Pending(number, route, b"", 0, 0, None, "", answer)


async def test_the_limit_counts_admitted_and_unanswered_requests() -> None:
    table = PendingTable()
    first = pending(1)
    table.admit(first)
    table.admit(pending(2))
    with pytest.raises(QueueFull, match="2 requests waiting or running, its limit"):
        table.admit(pending(3))
    table.forget(first)
    table.forget(first)
    table.admit(pending(3))
    assert table.count(ROUTE.queue) == 2


async def test_a_claim_is_granted_once_while_its_holder_lives() -> None:
    table = PendingTable()
    table.admit(pending(1))
    assert table.claim(1, "a", {"a", "b"}) == 1
    assert table.claim(1, "b", {"a", "b"}) == 0, "worker a lives and runs it"
    assert table.claim(1, "b", {"b"}) == 2, "worker a died"


async def test_a_request_that_kills_its_workers_is_given_up_with_an_error() -> None:
    table = PendingTable()
    poison = pending(1)
    table.admit(poison)
    assert [table.claim(1, worker, {worker}) for worker in "abc"] == [1, 2, 0]
    with pytest.raises(PoisonedRequest, match="3 workers died while they ran this request"):
        await poison.answer


async def test_answered_cancelled_and_unknown_requests_are_not_run_again() -> None:
    table = PendingTable()
    answered, cancelled = pending(1), pending(2)
    table.admit(answered)
    table.admit(cancelled)
    answered.answer.set_result(None)  # type: ignore[arg-type]
    cancelled.answer.cancel()
    assert [table.claim(number, "a", {"a"}) for number in (1, 2, 3)] == [0, 0, 0]
