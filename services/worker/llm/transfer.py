"""From the host to the device, without waiting: a wait in mid-step leaves the device idle until the host is back."""

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor


def send(array: NDArray[Any], device: torch.device) -> Tensor:
    """The array on a device; on a CPU, the same memory.

    Only a copy from pinned memory lets the host go on; torch keeps such memory until the copy is done.
    """
    tensor = torch.from_numpy(array)
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)
