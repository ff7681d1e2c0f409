"""When a batch is worth another thread."""

from services.worker.meter import BRIEF_SECONDS, Meter


def metered(runs: list[float], *, around: float = 0.0) -> Meter:
    meter = Meter()
    for seconds in runs:
        meter.ran(1, seconds + around, seconds)
    return meter


def test_nothing_is_brief_before_it_has_shown_it() -> None:
    assert not Meter().brief
    assert not metered([1e-6] * 10).brief
    assert metered([1e-6] * 100).brief


def test_a_long_run_is_remembered_for_a_while() -> None:
    assert not metered([1e-6] * 100 + [BRIEF_SECONDS * 2]).brief
    assert metered([1e-6] * 100 + [BRIEF_SECONDS * 2] + [1e-6] * 20).brief


def test_models_that_run_long_are_never_brief() -> None:
    assert not metered([BRIEF_SECONDS * 1.1] * 1000).brief


def test_much_work_around_a_short_run_counts_too() -> None:
    assert not metered([1e-6] * 1000, around=BRIEF_SECONDS * 11).brief
