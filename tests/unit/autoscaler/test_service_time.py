"""What a request costs, learned from batches."""

import random

import pytest

from services.autoscaler.service_time import ServiceTime


def learned(sizes: list[int], fixed: float, each: float, noise: float = 0.0) -> ServiceTime:
    service, generator = ServiceTime(), random.Random(1)
    for size in sizes:
        service.note(1, size, (fixed + each * size) * (1 + noise * generator.uniform(-1, 1)))
    return service


def test_nothing_is_known_before_the_first_batch() -> None:
    assert ServiceTime().per_request(8) is None


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_the_cost_at_the_full_batch_is_read_off_batches_of_many_sizes(noise: float) -> None:
    service = learned([1, 2, 3, 4, 5, 6, 7, 8] * 20, 0.080, 0.010, noise)
    assert service.per_request(8) == pytest.approx((0.080 + 8 * 0.010) / 8, rel=0.2 if noise else 0.01)
    # Twice what was seen is believed, more is not.
    assert service.per_request(1000) == service.per_request(16)


def test_batches_of_one_size_say_what_they_cost_and_no_more() -> None:
    assert learned([1] * 50, 0.080, 0.010).per_request(64) == pytest.approx(0.090)


def test_noise_never_makes_requests_free_nor_dearer_than_they_were() -> None:
    service = learned([1, 2] * 10, 0.010, 0.0, noise=0.9)
    cost = service.per_request(64)
    assert cost is not None
    assert 0 < cost <= 0.010 * 1.9


def test_a_model_that_became_slower_is_noticed() -> None:
    service = learned([4] * 500, 0.0, 0.010)
    for _ in range(1000):
        service.note(1, 4, 0.200)
    assert service.per_request(4) == pytest.approx(0.050, rel=0.1)


def test_sums_of_several_batches_count_as_so_many() -> None:
    service = ServiceTime()
    service.note(10, 20, 1.0)
    service.note(0, 0, 0.0)
    assert service.per_request(2) == pytest.approx(0.05)
