"""The lease among several processes, on a real folder and with a clock of the test's own."""

import asyncio
from pathlib import Path

from services.common.lease import RENEW_SECONDS, TERM_SECONDS, Lease
from services.common.objects.directory import DirectoryStore


class Clock:
    """Time that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Racer:
    """One autoscaler."""

    def __init__(self, folder: Path, name: str, clock: Clock) -> None:
        self.taken = 0
        self.lease = Lease(DirectoryStore(folder), "autoscaler/lease/", name, self._take, clock=clock)

    def _take(self) -> None:
        self.taken += 1


async def test_of_many_that_begin_together_one_is_active_and_the_others_know_it(tmp_path: Path) -> None:
    clock = Clock()
    racers = [Racer(tmp_path, f"host:{number}", clock) for number in range(8)]
    for _ in range(5):
        await asyncio.gather(*(racer.lease.step() for racer in racers))
        assert sum(racer.lease.held for racer in racers) == 1
        clock.now += RENEW_SECONDS
    (active,) = [racer for racer in racers if racer.lease.held]
    assert {racer.lease.holder for racer in racers} == {active.lease.holder}
    assert sum(racer.taken for racer in racers) == 1


async def test_one_that_dies_is_followed_within_fifteen_seconds_and_never_are_two_active(tmp_path: Path) -> None:
    clock = Clock()
    first, second = Racer(tmp_path, "first", clock), Racer(tmp_path, "second", clock)
    await first.lease.step()
    await second.lease.step()
    died = clock.now
    while not second.lease.held:
        clock.now += 0.5
        await second.lease.step()
        assert not (first.lease.held and second.lease.held)
        assert clock.now - died <= 15
    assert clock.now - died >= TERM_SECONDS
    # The first was only asleep: it sees who is active and stays quiet.
    await first.lease.step()
    assert (first.lease.held, first.lease.holder) == (False, "second")


async def test_one_that_leaves_in_order_is_followed_at_once(tmp_path: Path) -> None:
    clock, taken = Clock(), asyncio.Event()
    lease = Lease(DirectoryStore(tmp_path), "autoscaler/lease/", "first", taken.set, clock=clock)
    second = Racer(tmp_path, "second", clock)
    running = asyncio.create_task(lease.run())
    await asyncio.wait_for(taken.wait(), 10)
    await second.lease.step()
    assert not second.lease.held
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert not lease.held
    await second.lease.step()
    assert second.lease.held


async def test_a_holder_that_cannot_renew_stops_before_its_term_is_over(tmp_path: Path) -> None:
    clock = Clock()
    racer = Racer(tmp_path, "one", clock)
    await racer.lease.step()
    clock.now += TERM_SECONDS - 1
    assert not racer.lease.held


async def test_the_chain_does_not_grow(tmp_path: Path) -> None:
    clock = Clock()
    racer = Racer(tmp_path, "one", clock)
    for _ in range(20):
        await racer.lease.step()
        clock.now += RENEW_SECONDS
    assert len([info async for info in DirectoryStore(tmp_path).list("autoscaler/lease/")]) <= 3
