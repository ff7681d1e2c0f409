"""The sampler: parent first, then the token bucket."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.telemetry.requests import RequestSampler
from services.common.telemetry.sampling import TokenBucket, TraceParent, parse

SAMPLED = f"00-{'a1' * 16}-{'b2' * 8}-01"
UNSAMPLED = f"00-{'a1' * 16}-{'b2' * 8}-00"


@pytest.mark.parametrize(
    ("text", "sampled"),
    [
        (SAMPLED, True),
        (UNSAMPLED, False),
        (SAMPLED[:-2] + "03", True),  # other flags do not matter
        ("42" + SAMPLED[2:] + "-more", True),  # a later version may have more fields
        (SAMPLED + "-more", None),
        ("ff" + SAMPLED[2:], None),
        (f"00-{'0' * 32}-{'b2' * 8}-01", None),
        (f"00-{'a1' * 16}-{'0' * 16}-01", None),
        (SAMPLED.upper(), None),
        (SAMPLED + "\n", None),
        (SAMPLED[1:], None),
        ("", None),
    ],
)
def test_traceparent_is_read_as_w3c_has_it(text: str, sampled: bool | None) -> None:
    parsed = parse(text)
    assert (parsed.sampled if parsed else None) == sampled


@given(st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1), st.booleans())
def test_traceparent_round_trips(trace_id: int, span_id: int, sampled: bool) -> None:
    context = TraceParent(trace_id, span_id, sampled)
    assert parse(str(context)) == context


@given(st.text(max_size=80))
def test_no_text_breaks_the_parser(text: str) -> None:
    parsed = parse(text)
    assert parsed is None or parsed.trace_id > 0


@given(
    rate=st.floats(0, 50),
    gaps=st.lists(st.floats(0, 2), max_size=100),
)
def test_bucket_never_lets_more_than_its_rate_and_one_burst_pass(rate: float, gaps: list[float]) -> None:
    bucket = TokenBucket(rate)
    now = began = 1000.0
    passed = 0
    for gap in gaps:
        now += gap
        passed += bucket.take(now)
    burst = max(1.0, rate) if rate else 0.0
    assert passed <= burst + rate * (now - began) + 1e-6


@pytest.mark.parametrize(
    ("rate", "at", "passes"),
    [
        (0.0, [0, 1, 2], [False, False, False]),
        (1.0, [0, 0, 0.5, 1.0, 1.5], [True, False, False, True, False]),
        (2.0, [0, 0, 0, 0.5, 0.6], [True, True, False, True, False]),
        (0.5, [0, 1, 2], [True, False, True]),
        (2.0, [5, 4, 3], [True, True, False]),  # a clock that goes back gives nothing
    ],
)
def test_bucket_table(rate: float, at: list[float], passes: list[bool]) -> None:
    bucket = TokenBucket(rate)
    assert [bucket.take(now) for now in at] == passes


def test_without_an_exporter_a_sampled_context_passes_through_and_nothing_begins() -> None:
    sampler = RequestSampler(None, 1000)
    trace = sampler.begin(SAMPLED)
    assert trace is not None
    assert trace.traceparent == SAMPLED
    assert trace.trace_id == "a1" * 16
    trace.published("q", 1, 1, 2)
    trace.end(0)
    assert sampler.begin(UNSAMPLED) is None
    assert sampler.begin("") is None
    assert sampler.begin(None) is None
