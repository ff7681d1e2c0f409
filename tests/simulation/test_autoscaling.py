"""The policy in simulated time, beside plain queue-length scaling."""

import pytest

from benchmarks.autoscaling import compare
from benchmarks.autoscaling.arrivals import TRACES, Arrival, TokenCost, azure, poisson
from benchmarks.autoscaling.scalers import Fixed, Ours
from benchmarks.autoscaling.simulator import Machine, Outcome, Simulation
from services.autoscaler.policy.config import Limits, PolicyConfig

CODE = TRACES / "AzureLLMInferenceTrace_code.csv"


def bursts(now: float) -> float:
    """Bursts of 45 s every three minutes over a trickle."""
    return 40.0 if now % 180 < 45 else 0.5


@pytest.fixture(scope="module")
def bursty() -> list[Arrival]:
    return poisson(bursts, 40.0, 1800.0, 0.1)


def simulated(arrivals: list[Arrival], config: PolicyConfig, machine: Machine) -> Outcome:
    return Simulation(arrivals, Ours(config), machine).run()


def test_a_fixed_number_costs_what_it_costs_and_answers_everything_once(bursty: list[Arrival]) -> None:
    outcome = Simulation(bursty, Fixed(8), Machine(batch_seconds=0.0), workers=8).run()
    assert sorted(at for at, _ in outcome.latencies) == [arrival.at for arrival in bursty]
    end = max(at + latency for at, latency in outcome.latencies)
    assert outcome.worker_seconds == pytest.approx(8 * end)
    # Nothing is done faster than it takes.
    assert min(latency for _, latency in outcome.latencies) >= 0.1 - 1e-9


def test_everything_is_answered_though_workers_come_and_go(bursty: list[Arrival]) -> None:
    outcome = simulated(bursty, PolicyConfig(Limits(0, 10), scale_down_window=5, burst_half_life=5), Machine(5.0))
    assert sorted(at for at, _ in outcome.latencies) == [arrival.at for arrival in bursty]
    workers = [asked for _, asked, _, _ in outcome.samples]
    assert max(workers) >= 5 * max(1, min(workers[60:]))


def test_the_first_request_after_silence_waits_for_one_start_and_its_own_run() -> None:
    quiet = [Arrival(100.3, 0.1), Arrival(900.7, 0.1)]
    outcome = simulated(quiet, PolicyConfig(Limits(0, 4), idle_seconds=30.0), Machine(8.0, batch_seconds=0.0))
    assert [latency for _, latency in outcome.latencies] == pytest.approx([8.1, 8.1])
    # One worker, twice: started, idle for the window, gone.
    assert outcome.worker_seconds < 2 * (8 + 30 + 35)


def test_fewer_late_requests_than_plain_queue_length_scaling_at_the_same_cost(bursty: list[Arrival]) -> None:
    machine = Machine(start_seconds=5.0)
    mine = compare.ours(bursty, machine, 12)
    rival = compare.at_equal_cost(mine, compare.plain(bursty, machine, 12))
    assert rival.late >= 2 * mine.late


@pytest.mark.skipif(not CODE.exists(), reason=f"no trace at {CODE}")
def test_an_hour_of_production_traffic_costs_far_less_than_its_peak_and_fewer_are_late_than_with_plain_scaling() -> (
    None
):
    arrivals, machine = azure(CODE, TokenCost()), Machine(15.0)
    mine = compare.ours(arrivals, machine, 22)
    rival = compare.at_equal_cost(mine, compare.plain(arrivals, machine, 22))
    assert mine.cost <= 0.4 * compare.fixed(arrivals, machine, 22).cost
    assert rival.late >= 2 * mine.late
