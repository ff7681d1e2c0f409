"""How fast the device's memory is: the limit of decoding one sequence."""

import gc
import time
from collections.abc import Callable

import torch

_REPEATS = 5


def bandwidth(device: torch.device, size: int) -> dict[str, float]:
    """Bytes per second, the best of several runs each.

    Args:
        size: bytes of the buffer; it should be larger than every cache.

    Returns:
        "read": a sum over the buffer, as decoding reads weights; "copy": bytes read and bytes written.
    """
    source = torch.ones(size // 4, dtype=torch.float32, device=device)
    target = torch.empty_like(source)
    return {
        "read": size / _seconds(source.sum, device),
        "copy": 2 * size / _seconds(lambda: target.copy_(source), device),
    }


def release() -> None:
    """Gives back what nobody refers to any more: the next to come takes what is free."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def synchronize(device: torch.device) -> None:
    """Waits until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _seconds(action: Callable[[], object], device: torch.device) -> float:
    action()
    best = float("inf")
    for _ in range(_REPEATS):
        synchronize(device)
        began = time.perf_counter()
        action()
        synchronize(device)
        best = min(best, time.perf_counter() - began)
    return best
