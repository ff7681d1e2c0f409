"""The benchmark of many models, small: what it counts must hold at any size."""

import asyncio
from pathlib import Path

from benchmarks.multi_model import zoo
from benchmarks.multi_model.callers import call_all
from benchmarks.multi_model.fleet import fleet, settled, zoo_stack
from benchmarks.multi_model.popularity import lru_misses, zipf
from headrace import Client

MODELS, HOLD, REQUESTS = 30, 9, 500


def test_two_workers_load_hardly_more_than_one_cache_that_sees_all(tmp_path: Path) -> None:
    sizes = [zoo.declared_bytes(number) for number in range(MODELS)]
    capacity = HOLD * sum(sizes) // MODELS
    sequence = zipf(MODELS, REQUESTS, seed=3)
    with zoo_stack(tmp_path, MODELS, capacity) as up, Client(up.address("gateway")) as client:
        before = fleet(client)  # the first to be pushed fitted together, and were loaded before they were asked for
        latencies = asyncio.run(call_all(up.address("gateway"), sequence, 4))
        state = settled(client)
    assert len(latencies) == REQUESTS
    offline = lru_misses(sequence, sizes, capacity)
    # Two caches waste what is left over in each, and callers overtake each other.
    assert state.loads - before.loads <= 1.25 * offline
    assert state.evictions <= state.loads
    assert state.used_bytes <= capacity


def test_the_offline_cache_is_a_cache() -> None:
    assert lru_misses([0, 1, 0, 2, 0, 1], [1, 1, 1], 2) == 4
    assert lru_misses([0, 1, 0, 2, 0, 1], [1, 1, 1], 3) == 3
    assert lru_misses([0, 1, 0, 1], [1, 2, 1], 2) == 4
    popular = zipf(100, 5000, seed=1)
    assert max(popular.count(model) for model in set(popular)) > 500
