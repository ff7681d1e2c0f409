"""A plan becomes tensors: the block tables that rows keep from step to step, and where each token belongs."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from services.worker.llm.attention.port import Step
from services.worker.llm.plan import Plan
from services.worker.llm.transfer import send


class Inputs:
    """The block tables of a runner's rows, on the host and on the device.

    Args:
        rows: most sequences at a time.
        columns: blocks of the longest context.
        padding_block: a block that no sequence gets, for steps with padding.

    Attributes:
        tables: int32 [rows + 1, columns] on the device; the last row is padding's.
        padding: int32 [4], what `decode` would say of a sequence that is none.
    """

    def __init__(self, rows: int, columns: int, block_size: int, device: torch.device, padding_block: int = 0) -> None:
        self._block_size, self._device = block_size, device
        self._tables = np.zeros((rows + 1, columns), np.int32)
        self._tables[rows] = padding_block
        self.tables = send(self._tables, device)  # on a CPU, the same memory
        self.padding = np.array([0, 0, padding_block * block_size, rows], np.int32)

    def step(self, plan: Plan) -> Step:
        """Takes the plan's new table entries in, then says where its tokens belong."""
        self._extend(plan)
        rows, starts, counts = (np.array(numbers, np.int64) for numbers in (plan.rows, plan.starts, plan.counts))
        firsts = np.cumsum(counts) - counts
        positions = np.arange(int(counts.sum())) - np.repeat(firsts - starts, counts)
        return Step(
            tables=self.tables,
            rows=self._sent(rows.astype(np.int32)),
            firsts=self._sent(firsts.astype(np.int32)),
            starts=self._sent(starts.astype(np.int32)),
            counts=self._sent(counts.astype(np.int32)),
            positions=self._sent(positions),
            slots=self._sent(self._slots(np.repeat(rows, counts), positions)),
            chunk_counts=plan.counts,
            chunk_contexts=(starts + counts).tolist(),
        )

    def decode(self, plan: Plan) -> NDArray[np.int32]:
        """The same for a plan of one token for each sequence: int32 [4, sequences] of token, position, slot and row."""
        self._extend(plan)
        rows, starts = np.array(plan.rows), np.array(plan.starts)
        return np.stack([np.array(plan.token_ids), starts, self._slots(rows, starts), rows]).astype(np.int32)

    def last_tokens(self, plan: Plan) -> Tensor:
        """int64, places among the step's tokens of the last one of each chunk that samples."""
        ends = np.cumsum(plan.counts) - 1
        return self._sent(ends[plan.sampling])

    def tokens(self, plan: Plan) -> Tensor:
        """int64 [tokens]."""
        return self._sent(np.array(plan.token_ids, np.int64))

    def _extend(self, plan: Plan) -> None:
        if not plan.table_rows:
            return
        self._tables[plan.table_rows, plan.table_columns] = plan.table_blocks
        if self._device.type != "cpu":
            where = (self._sent(np.array(plan.table_rows)), self._sent(np.array(plan.table_columns)))
            self.tables[where] = self._sent(np.array(plan.table_blocks, np.int32))

    def _slots(self, rows: NDArray[np.int64], positions: NDArray[np.int64]) -> NDArray[np.int64]:
        blocks = self._tables[rows, positions // self._block_size].astype(np.int64)
        return blocks * self._block_size + positions % self._block_size

    def _sent(self, array: NDArray[np.int64] | NDArray[np.int32]) -> Tensor:
        return send(array, self._device)
