"""Accepted requests leave the table exactly once, whatever workers do."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from headrace.v1.model_pb2 import ModelSpec, ModelVersion, QueueSpec
from headrace.v1.reply_pb2 import AttachRequest, AttachResponse, Claim, Reply, Verdict, WorkerHello
from headrace.v1.text_generation_pb2 import FINISH_REASON_STOP, TextChunk
from services.common.errors import PoisonedRequest, QueueFull
from services.gateway.calls import Call
from services.gateway.dispatch.links import ReplyChannel
from services.gateway.dispatch.pending import Pending, PendingTable
from services.gateway.dispatch.text_stream import TextStream
from services.gateway.routes import Route, route_of

ROUTE = route_of(ModelVersion(name="m", version=1, spec=ModelSpec(queue=QueueSpec(max_requests=2, max_attempts=2))))


def pending(number: int, route: Route = ROUTE) -> Pending:
    answer = asyncio.get_running_loop().create_future()
    return Pending(number, route, b"", 0, 0, None, None, answer)


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


def generation(number: int) -> Pending:
    made = pending(number)
    made.stream = TextStream(1)
    return made


def token(text: str, offset: int) -> Reply:
    return Reply(id=1, chunk=TextChunk(text=text, text_offset=offset))


async def test_a_generation_that_gets_on_between_deaths_is_not_given_up() -> None:
    table = PendingTable()
    table.admit(made := generation(1))
    assert made.stream is not None
    for number, worker in enumerate("abcdef"):
        assert table.claim(1, worker, {worker}) == 1
        made.stream.take(token("x", number))
    assert [table.claim(1, worker, {worker}) for worker in "ghi"] == [1, 2, 0]
    with pytest.raises(PoisonedRequest):
        await made.answer


class Attached:
    """Workers on a reply channel, as the gateway sees them."""

    def __init__(self, table: PendingTable) -> None:
        self.channel = ReplyChannel(table, "gateway", "token", on_claim=lambda verdict: None)

    async def worker(self, name: str) -> "tuple[asyncio.Queue[bytes], AsyncIterator[bytes]]":
        sent: asyncio.Queue[bytes] = asyncio.Queue()

        async def requests() -> AsyncIterator[bytes]:
            while True:
                yield await sent.get()

        hello = WorkerHello(worker_id=name, gateway_id="gateway", token="token")
        sent.put_nowait(AttachRequest(hello=hello).SerializeToString())
        frames = self.channel.attach(Call("", {}), requests())
        await anext(frames)
        return sent, frames


async def verdict_of(frames: AsyncIterator[bytes]) -> Verdict:
    async with asyncio.timeout(5):
        async for frame in frames:
            for verdict in AttachResponse.FromString(frame).verdicts:
                return verdict
    raise AssertionError("the stream ended")


CLAIM = AttachRequest(claims=[Claim(id=1)]).SerializeToString()


async def test_a_claim_on_what_a_live_worker_runs_waits_for_its_death_and_gets_what_was_passed_on() -> None:
    table = PendingTable()
    table.admit(made := generation(1))
    attached = Attached(table)
    a, a_frames = await attached.worker("a")
    b, b_frames = await attached.worker("b")
    a.put_nowait(AttachRequest(replies=[token("abc", 0)], sequence=1).SerializeToString())
    await anext(a_frames)  # its receipt
    b.put_nowait(CLAIM)
    claim = asyncio.ensure_future(verdict_of(b_frames))
    a.put_nowait(AttachRequest(replies=[token("d", 3)], sequence=2).SerializeToString())
    await anext(a_frames)
    assert not claim.done(), "worker a lives and runs it"
    await a_frames.aclose()  # type: ignore[attr-defined]
    verdict = await claim
    assert (verdict.run, verdict.attempt) == (True, 1)
    assert [passed.text for passed in verdict.progress] == ["abcd"]
    assert made.holder == "b/"


async def test_those_who_stand_by_are_dismissed_when_it_is_answered_and_take_over_what_is_given_up() -> None:
    table = PendingTable()
    table.admit(made := generation(1))
    attached = Attached(table)
    a, a_frames = await attached.worker("a")
    b, b_frames = await attached.worker("b")
    a.put_nowait(AttachRequest(replies=[token("abc", 0)], sequence=1).SerializeToString())
    await anext(a_frames)
    b.put_nowait(CLAIM)
    claim = asyncio.ensure_future(verdict_of(b_frames))
    a.put_nowait(AttachRequest(replies=[Reply(id=1, released=True)], sequence=2).SerializeToString())
    assert (await claim).run
    a.put_nowait(CLAIM)
    claim = asyncio.ensure_future(verdict_of(a_frames))
    end = TextChunk(finish_reason=FINISH_REASON_STOP, text_offset=3)
    b.put_nowait(AttachRequest(replies=[Reply(id=1, chunk=end)], sequence=1).SerializeToString())
    assert (await made.answer).chunk.finish_reason == FINISH_REASON_STOP
    attached.channel.over(1)
    assert not (await claim).run


async def test_tokens_of_a_worker_that_was_replaced_are_dropped_and_it_is_told_to_stop() -> None:
    table = PendingTable()
    table.admit(made := generation(1))
    attached = Attached(table)
    a, a_frames = await attached.worker("a")
    b, b_frames = await attached.worker("b")
    b.put_nowait(CLAIM)
    assert (await verdict_of(b_frames)).run
    a.put_nowait(AttachRequest(replies=[token("late", 0)], sequence=1).SerializeToString())
    assert list(AttachResponse.FromString(await anext(a_frames)).cancelled) == [1]
    assert made.stream is not None
    assert made.stream.progress() == []
