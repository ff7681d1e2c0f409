"""Which model each request is for, and what a cache that knows nothing of workers would make of it. Pure."""

import random
from collections import OrderedDict
from collections.abc import Sequence


def zipf(models: int, requests: int, *, exponent: float = 1.0, seed: int = 0) -> list[int]:
    """Models by number; the popular ones stand anywhere among them."""
    generator = random.Random(seed)
    order = list(range(models))
    generator.shuffle(order)
    weights = [1 / rank**exponent for rank in range(1, models + 1)]
    return generator.choices(order, weights, k=requests)


def lru_misses(sequence: Sequence[int], sizes: Sequence[int], capacity: int) -> int:
    """Loads of one least-recently-used cache of `capacity` bytes that sees the whole sequence, empty at first."""
    held: OrderedDict[int, int] = OrderedDict()
    used = misses = 0
    for model in sequence:
        if model in held:
            held.move_to_end(model)
            continue
        misses += 1
        while used + sizes[model] > capacity:
            used -= held.popitem(last=False)[1]
        held[model] = sizes[model]
        used += sizes[model]
    return misses
