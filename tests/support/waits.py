"""Finds the operators of torch for which the host waits for the device, without a device that one could wait for."""

from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

# Each needs a number of the device's on the host: on a GPU, all that was begun before must be done first.
_WAITING = {"aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select"}


class Waits(TorchDispatchMode):
    """Notes them while it is entered. `tolist` goes past it on a CPU.

    Attributes:
        found: names of the operators, as they came.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's has no types
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if (name := func.name().split(".")[0]) in _WAITING:
            self.found.append(name)
        return func(*args, **(kwargs or {}))
