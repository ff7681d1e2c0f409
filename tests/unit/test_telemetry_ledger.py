"""Counting in place."""

from bisect import bisect_left

from hypothesis import given
from hypothesis import strategies as st

from services.common.telemetry.instruments import DURATIONS, GatewayInstruments, WorkerInstruments
from services.common.telemetry.ledger import Histogram, Ledger


@given(st.lists(st.floats(0, 100)))
def test_histogram_counts_every_value_in_its_bucket(values: list[float]) -> None:
    histogram = Histogram(DURATIONS)
    for value in values:
        histogram.record(value)
    assert sum(histogram.counts) == len(values)
    assert histogram.counts[0] == sum(value <= DURATIONS[0] for value in values)
    assert histogram.counts[-1] == sum(value > DURATIONS[-1] for value in values)
    if values:
        assert (histogram.lowest, histogram.highest) == (min(values), max(values))
        assert histogram.counts[bisect_left(DURATIONS, values[0])] > 0


def test_models_are_counted_apart_and_forgotten_whole() -> None:
    ledger = Ledger()
    gateway, worker = GatewayInstruments(ledger), WorkerInstruments(ledger)
    for model, version in (("a", 1), ("a", 2)):
        counters = gateway.of(model, version)
        counters.began()
        counters.finished(8, 0.01)
        worker.of(model, version).loaded(True)
    assert gateway.of("a", 1) is gateway.of("a", 1)
    gateway.forget("a", 1)
    worker.forget("a", 1)
    left = {dict(key).get("headrace.model.version") for family in ledger.families() for key in family.series}
    assert left == {2, None}  # claims are of no model


def test_what_lets_callers_go_first_is_counted_apart_and_hides_no_callers_times() -> None:
    ledger = Ledger()
    gateway = GatewayInstruments(ledger)
    for background, seconds in ((False, 0.01), (True, 600.0)):
        counters = gateway.of("a", 1, background=background)
        counters.began()
        counters.finished(0, seconds)
    priorities = [dict(key).get("headrace.priority") for key in ledger.family("headrace.requests", "", "").series]
    assert sorted(map(str, priorities)) == ["None", "background"]
    (times,) = ledger.family("rpc.server.call.duration", "", "").series.values()
    assert isinstance(times, Histogram)
    assert times.total == 0.01
    gateway.forget("a", 1)
    assert not ledger.family("headrace.requests", "", "").series


def test_in_flight_returns_to_zero() -> None:
    ledger = Ledger()
    model = GatewayInstruments(ledger).of("a", 1)
    model.began()
    model.began()
    model.finished(0, 0.1)
    (gauge,) = ledger.family("headrace.requests.in_flight", "", "").series.values()
    assert isinstance(gauge.value if not isinstance(gauge, Histogram) else None, int | float)
    model.finished(99, 0.1)  # a code that gRPC does not have
    assert not isinstance(gauge, Histogram)
    assert gauge.value == 0
