"""What a gateway says of a model version's last seconds."""

from headrace.v1.reply_pb2 import Receipt
from services.gateway.stats import WINDOW_REQUESTS, ModelStats, Recent


def answered(stats: ModelStats, now: float, seconds: float) -> None:
    stats.answered(now, 0, seconds, 1, Receipt(batch_rows=1, batch_requests=1))


def test_a_shorter_window_sees_only_its_own_requests() -> None:
    stats = ModelStats()
    for second in range(60):
        answered(stats, second, 0.1 if second < 50 else 0.2)
    assert stats.recent(60, 10) == Recent(1.0, 200.0, 200.0)
    assert stats.recent(60).p50_ms == 100.0
    assert stats.recent(60).rate == 1.0
    assert stats.recent(80, 5) == Recent(0.0, 0.0, 0.0)
    assert stats.recent(80).rate == 40 / 60, "what a short window left out is still there"


def test_the_rate_is_right_where_not_all_requests_are_kept() -> None:
    stats, rate = ModelStats(), WINDOW_REQUESTS / 5
    for number in range(2 * WINDOW_REQUESTS):
        answered(stats, number / rate, 0.001)
    now = 2 * WINDOW_REQUESTS / rate
    for window in (1.0, 5.0, 60.0):
        assert abs(stats.recent(now, window).rate / rate - 1) < 0.01, window
