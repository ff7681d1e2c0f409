"""The token bucket: what it lets through, and when it says to come again."""

from hypothesis import given
from hypothesis import strategies as st

from services.gateway.rate import TokenBucket


def test_a_burst_then_the_rate() -> None:
    bucket = TokenBucket(rate=2.0, burst=3)
    assert [bucket.take(10.0) for _ in range(4)] == [0, 0, 0, 0.5]
    assert bucket.take(10.25) == 0.25
    assert bucket.take(10.5) == 0
    assert [bucket.take(1000.0) for _ in range(4)] == [0, 0, 0, 0.5], "idle time is kept up to the burst"


def test_who_may_wait_leaves_tokens_to_others() -> None:
    bucket = TokenBucket(rate=2.0, burst=5)
    assert [bucket.take(10.0, leave=2.0) for _ in range(4)] == [0, 0, 0, 0.5]
    assert [bucket.take(10.0) for _ in range(3)] == [0, 0, 0.5]
    assert bucket.take(11.0, leave=2.0) == 0.5


@given(
    rate=st.floats(0.1, 1000),
    burst=st.integers(1, 50),
    gaps=st.lists(st.floats(0, 5), min_size=1, max_size=200),
)
def test_never_more_than_the_burst_and_the_rate_and_never_a_lie(rate: float, burst: int, gaps: list[float]) -> None:
    bucket, now, granted = TokenBucket(rate, burst), 0.0, 0
    for gap in gaps:
        now += gap
        wait = bucket.take(now)
        granted += wait == 0
        assert granted <= burst + rate * now + 1e-6
        if wait:
            now += wait + 1e-9 + now * 1e-12
            assert bucket.take(now + 1e-6) == 0, "who comes when told to is let in"
            granted += 1
            now += 1e-6
