"""A plan becomes tensors: the block tables that rows keep from step to step, and where each token belongs."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from services.worker.llm.attention.port import Step
from services.worker.llm.plan import Plan

Ints = NDArray[np.int64]


class Inputs:
    """The block tables of a runner's rows, on the host and on the device.

    Args:
        rows: most sequences at a time.
        columns: blocks of the longest context.
    """

    def __init__(self, rows: int, columns: int, block_size: int, device: torch.device) -> None:
        self._block_size, self._device = block_size, device
        self._tables = np.zeros((rows, columns), np.int32)
        self._device_tables = self._sent(self._tables)  # on a CPU, the same memory

    def step(self, plan: Plan) -> Step:
        """Takes the plan's new table entries in, then says where its tokens belong."""
        if plan.table_rows:
            self._tables[plan.table_rows, plan.table_columns] = plan.table_blocks
            if self._device.type != "cpu":
                where = (self._sent(np.array(plan.table_rows)), self._sent(np.array(plan.table_columns)))
                self._device_tables[where] = self._sent(np.array(plan.table_blocks, np.int32))
        rows, starts, counts = (np.array(numbers, np.int64) for numbers in (plan.rows, plan.starts, plan.counts))
        firsts = np.cumsum(counts) - counts
        positions = np.arange(int(counts.sum())) - np.repeat(firsts - starts, counts)
        blocks = self._tables[np.repeat(rows, counts), positions // self._block_size].astype(np.int64)
        return Step(
            tables=self._device_tables,
            rows=self._sent(rows.astype(np.int32)),
            firsts=self._sent(firsts.astype(np.int32)),
            starts=self._sent(starts.astype(np.int32)),
            counts=self._sent(counts.astype(np.int32)),
            positions=self._sent(positions),
            slots=self._sent(blocks * self._block_size + positions % self._block_size),
            chunk_counts=plan.counts,
            chunk_contexts=(starts + counts).tolist(),
        )

    def last_tokens(self, plan: Plan) -> Tensor:
        """int64, places among the step's tokens of the last one of each chunk that samples."""
        ends = np.cumsum(plan.counts) - 1
        return self._sent(ends[plan.sampling])

    def tokens(self, plan: Plan) -> Tensor:
        """int64 [tokens]."""
        return self._sent(np.array(plan.token_ids, np.int64))

    def _sent(self, array: NDArray[np.int64] | NDArray[np.int32]) -> Tensor:
        return torch.from_numpy(array).to(self._device)
