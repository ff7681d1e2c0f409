"""Decode steps of a few fixed sizes, each the same work on the same memory every time, so that it can be recorded.

A step of 5 sequences runs as one of 8: what is missing is padding, which reads and writes a block and a row of the
block tables that no sequence has. The idea and the sizes are nano-vllm's and vLLM's.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from services.worker.llm.attention.port import Step
from services.worker.llm.graphs import Capture
from services.worker.llm.inputs import Inputs
from services.worker.llm.plan import Plan

# [tokens], the step → [tokens, vocabulary]
Compute = Callable[[Tensor, Step], Tensor]

# More sequences than this fill a device, and launching its kernels one by one is no matter.
_LARGEST = 256


def ladder(most: int) -> list[int]:
    """Sizes of steps for up to `most` sequences: close together where a row more costs most."""
    most = min(most, _LARGEST)
    return [*(size for size in (1, 2, 4, 8, *range(16, most, 16)) if size < most), most]


class PaddedDecode:
    """Computes plans of one token for each sequence.

    Args:
        compute: the model over a step's tokens. What it does must not depend on the numbers that the tensors hold.
        inputs: the block tables, with a row for padding.
        most: sequences of the largest step.
        max_model_len: no context is longer, in tokens.
        logits: [most, vocabulary], where the results go.
        capture: makes of a step what runs it again.
    """

    def __init__(
        self, compute: Compute, inputs: Inputs, *, most: int, max_model_len: int, logits: Tensor, capture: Capture
    ) -> None:
        device = logits.device
        self._compute, self._inputs, self._longest, self._logits = compute, inputs, max_model_len, logits
        self._sizes = ladder(most)
        largest = self._sizes[-1]
        # Token, position, slot and row of each sequence: one copy a step. It is done before the next step, which begins
        # when the tokens drawn from this one are on the host.
        self._host = torch.zeros(4, largest, dtype=torch.int32, pin_memory=device.type == "cuda")
        self._numbers = torch.zeros(4, largest, dtype=torch.int32, device=device)
        self._firsts = torch.arange(largest, dtype=torch.int32, device=device)
        self._ones = torch.ones(largest, dtype=torch.int32, device=device)
        with torch.inference_mode():
            self._fill(np.zeros((4, 0), np.int32), largest)
            # The largest first: the others then find the memory that it took.
            self._replays = {size: capture(partial(self._step, size)) for size in reversed(self._sizes)}

    def takes(self, plan: Plan) -> bool:
        """Whether a plan is such a step: every sequence has one token and is due the next."""
        return len(plan.token_ids) == len(plan.rows) == len(plan.sampling) <= self._sizes[-1]

    def logits(self, plan: Plan) -> Tensor:
        """[sequences, vocabulary]; good until the next step."""
        count = len(plan.rows)
        size = next(size for size in self._sizes if size >= count)
        self._fill(self._inputs.decode(plan), size)
        self._replays[size]()
        return self._logits[:count]

    def _fill(self, numbers: np.ndarray[tuple[int, int], np.dtype[np.int32]], size: int) -> None:
        """Brings [4, sequences] to the device, padding behind it."""
        count = numbers.shape[1]
        host = self._host.numpy()
        host[:, :count] = numbers
        host[:, count:size] = self._inputs.padding[:, None]
        self._numbers.copy_(self._host, non_blocking=True)

    def _step(self, size: int) -> None:
        tokens, positions, slots, rows = self._numbers[:, :size]
        step = Step(
            tables=self._inputs.tables,
            rows=rows,
            firsts=self._firsts[:size],
            starts=positions,
            counts=self._ones[:size],
            positions=positions.long(),
            slots=slots.long(),
            chunk_counts=[1] * size,
            chunk_contexts=[self._longest] * size,  # at most: they grow, and the step stays the same
        )
        self._logits[:size].copy_(self._compute(tokens.long(), step))
