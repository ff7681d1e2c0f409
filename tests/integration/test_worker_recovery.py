"""Workers and gateways that die, streams that break: what was taken is answered, or goes to somebody else."""

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from headrace.v1.reply_pb2 import AttachResponse
from headrace.v1.work_pb2 import WorkRequest
from tests.integration.test_worker_bench import (
    PATIENCE,
    Bench,
    answered,
    first_value,
    gateway,
    row,
    running_bench,
    until,
    work,
)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """Broker and registry, no worker yet."""
    async with running_bench(tmp_path) as ready:
        yield ready


async def test_a_reply_that_was_not_confirmed_is_not_acknowledged(bench: Bench) -> None:
    async with gateway() as one:
        one.confirm = False
        first = await bench.worker("w1")
        [request_id] = await bench.publish("headrace.add_one.1", one.reply_to, row(1))
        assert await first_value(one, request_id) == 2
        first.kill()
        await bench.depth("headrace.add_one.1", 1, 0)
        one.confirm, one.grant = True, False
        second = await bench.worker("w2")
        await bench.depth("headrace.add_one.1", 0, 1)
        await until(lambda: bool(one.claims))
        assert one.claims == [("w2", request_id)]
        [probe] = await bench.publish("headrace.add_one.1", one.reply_to, row(5))
        assert await first_value(one, probe) == 6
        # What was dropped was acknowledged: it does not come back.
        second.terminate()
        assert await asyncio.wait_for(second.wait(), PATIENCE) == 0
        await bench.depth("headrace.add_one.1", 0, 0)


async def test_a_killed_workers_requests_are_claimed_and_run_by_another(bench: Bench) -> None:
    async with gateway() as one:
        first = await bench.worker("w1")
        [killing] = await bench.publish("headrace.burn.1", one.reply_to, work("burn", 2_000))
        [waiting] = await bench.publish("headrace.burn.1", one.reply_to, work("burn", 2))
        await bench.depth("headrace.burn.1", 0, 1)
        # It holds both and answers neither, however long the other takes to start.
        first.send_signal(signal.SIGSTOP)
        await bench.worker("w2")
        first.kill()
        for request_id in (killing, waiting):
            assert (await answered(one, request_id)).receipt.batch_requests == 1
        assert sorted(one.claims) == [("w2", killing), ("w2", waiting)]


async def test_a_broken_stream_is_begun_again_and_repeats_what_was_not_confirmed(bench: Bench) -> None:
    async with gateway() as one:
        one.confirm = False
        await bench.worker("w1")
        [request_id] = await bench.publish("headrace.add_one.1", one.reply_to, row(1))
        await answered(one, request_id)
        one.confirm = True
        one.links["w1"].put_nowait(None)
        await until(lambda: one.frames["w1", 1] == 2)
        [later] = await bench.publish("headrace.add_one.1", one.reply_to, row(2))
        assert await first_value(one, later) == 3


async def test_a_gateway_that_is_gone_holds_up_nobody_else(bench: Bench) -> None:
    async with gateway() as one:
        worker = await bench.worker("w1")
        nobody, impostor = "127.0.0.1:9/gone/token", one.reply_to.replace("gateway-1", "gateway-0")
        queue = "headrace.add_one.1"
        await bench.publish(queue, nobody, row(1, attempt=1))
        await bench.publish(queue, nobody, row(1))
        await bench.publish(queue, impostor, row(1, attempt=1), row(2))
        [again] = await bench.publish(queue, one.reply_to, row(3, attempt=1))
        [fresh] = await bench.publish(queue, one.reply_to, row(4))
        async with asyncio.timeout(5):  # less than the patience with a gateway that does not answer
            assert await first_value(one, again) == 4
            assert await first_value(one, fresh) == 5
        # What the lost gateways asked for is dropped and acknowledged.
        await until(lambda: "gateway 127.0.0.1:9 is gone" in bench.log("worker"))
        worker.terminate()
        assert await asyncio.wait_for(worker.wait(), PATIENCE) == 0
        await bench.depth(queue, 0, 0)
        assert one.claims == [("w1", again)]


async def test_payloads_that_stayed_at_the_gateway_are_fetched(bench: Bench) -> None:
    async with gateway() as one:
        await bench.worker("w1")
        body = row(41).body
        one.payloads[77] = [body[:10], body[10:20], body[20:]]
        await bench.publish("headrace.add_one.1", one.reply_to, WorkRequest(id=77, held_bytes=len(body)), row(1))
        assert await first_value(one, 77) == 42


async def test_cancelled_and_expired_requests_are_not_run(bench: Bench) -> None:
    async with gateway() as one:
        await bench.worker("w1")
        queue = "headrace.burn.1"
        [running] = await bench.publish(queue, one.reply_to, work("burn", 1_000))
        # Each of these would run for minutes.
        [left] = await bench.publish(queue, one.reply_to, work("burn", 10**7))
        [late] = await bench.publish(queue, one.reply_to, work("burn", 10**7, deadline_unix_us=1))
        await until(lambda: "w1" in one.links)
        one.links["w1"].put_nowait(AttachResponse(cancelled=[left]))
        [last] = await bench.publish(queue, one.reply_to, work("burn", 1))
        for request_id in (running, last):
            assert (await answered(one, request_id)).WhichOneof("outcome") == "body"
        assert not one.answer(left).done()
        assert not one.answer(late).done()


async def test_one_poisoned_envelope_does_not_stop_the_queue(bench: Bench) -> None:
    async with gateway() as one:
        await bench.worker("w1")
        [garbage] = await bench.publish("headrace.add_one.1", one.reply_to, WorkRequest(body=b"\xff\xff"))
        assert (await answered(one, garbage)).error.code == 3
        [fine] = await bench.publish("headrace.add_one.1", one.reply_to, row(1))
        assert await first_value(one, fine) == 2
