"""A real worker between a real broker, a real registry and a gateway that the tests play."""

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.test_worker_bench import Bench, answered, first_value, gateway, row, running_bench, work


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """Broker and registry, no worker yet."""
    async with running_bench(tmp_path) as ready:
        yield ready


async def test_answers_are_right_batches_form_and_nothing_stays_in_the_queue(bench: Bench) -> None:
    async with gateway() as one:
        worker = await bench.worker("w1")
        ids = [await bench.publish("headrace.add_one.1", one.reply_to, *(row(n) for n in range(20))) for _ in range(5)]
        for envelope in ids:
            assert [await first_value(one, request_id) for request_id in envelope] == [n + 1 for n in range(20)]
        receipt = (await answered(one, ids[0][7])).receipt
        assert receipt.batch_requests >= 20
        assert (receipt.batch_rows, receipt.model_version) == (receipt.batch_requests, 1)
        assert receipt.compute_us > 0
        worker.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(worker.wait(), 30) == 0
        await bench.depth("headrace.add_one.1", 0, 0)
        assert one.claims == []


async def test_a_poisoned_request_fails_alone(bench: Bench) -> None:
    async with gateway() as one:
        await bench.worker("w1")
        works = [work("look_up", [[99 if n == 5 else n]]) for n in range(10)]
        ids = await bench.publish("headrace.look_up.1", one.reply_to, *works)
        error = (await answered(one, ids[5])).error
        assert error.code == 13
        assert "failed on this request" in error.message
        assert [await first_value(one, ids[n]) for n in range(10) if n != 5] == [n * n for n in range(10) if n != 5]


async def test_two_gateways_that_number_alike_get_their_own_answers(bench: Bench) -> None:
    async with gateway("a") as one, gateway("b") as two:
        await bench.worker("w1")
        for number in range(1, 21):
            await bench.publish("headrace.add_one.1", one.reply_to, row(number, id=number))
            await bench.publish("headrace.add_one.1", two.reply_to, row(-number, id=number))
        for number in range(1, 21):
            assert (await first_value(one, number), await first_value(two, number)) == (number + 1, 1 - number)


async def test_sigterm_hands_back_what_has_not_begun_and_loses_nothing(bench: Bench) -> None:
    async with gateway() as one:
        first = await bench.worker("w1")
        running = await bench.publish("headrace.burn.1", one.reply_to, work("burn", 3_000))
        await bench.depth("headrace.burn.1", 0, 1)
        waiting = [(await bench.publish("headrace.burn.1", one.reply_to, work("burn", 2)))[0] for _ in range(20)]
        first.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(first.wait(), 30) == 0
        assert (await answered(one, running[0])).WhichOneof("outcome") == "body"
        assert not any(one.answer(request_id).done() for request_id in waiting[1:])
        await bench.worker("w2")
        for request_id in waiting:
            assert (await answered(one, request_id)).WhichOneof("outcome") == "body"


@pytest.mark.parametrize("instances", [1, 2])
async def test_a_model_runs_as_many_batches_at_a_time_as_it_has_instances(bench: Bench, instances: int) -> None:
    """Two requests that may not share a batch: the second waits for the first, or runs beside it."""
    folder = bench.folder / "slow"
    folder.mkdir()
    (folder / "model.yaml").write_text(
        f"runtime: identity\ninstances: {instances}\nbatching: {{max_batch_size: 1}}\nwarmup: {{disabled: true}}\n"
        'parameters: {batch_ms: "1000"}\n'
    )
    await asyncio.to_thread(bench.push, "slow", folder)
    async with gateway() as one:
        await bench.worker("w1")
        ids = await bench.publish("headrace.slow.1", one.reply_to, row(1), row(2))
        assert [await first_value(one, request_id) for request_id in ids] == [1, 2]
        receipts = [(await answered(one, request_id)).receipt for request_id in ids]
        longest_wait = max(receipt.batch_us - min(each.batch_us for each in receipts) for receipt in receipts)
        assert (longest_wait >= receipts[0].compute_us) == (instances == 1)
