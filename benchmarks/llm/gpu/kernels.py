"""The attention kernels by themselves: what they compute beside the gather kernel, and how fast they read the cache."""

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.llm.gpu.memory import synchronize
from services.worker.llm.attention import make_attention
from services.worker.llm.attention.port import KVShape, PagedAttention, Rule
from services.worker.llm.inputs import Inputs
from services.worker.llm.options import AttentionName
from services.worker.llm.plan import Plan

_BLOCK = 16
_CHUNK = 512
_REPEATS = 20


@dataclass(frozen=True, slots=True)
class Case:
    """Heads, a rule and contexts to attend over.

    Attributes:
        lengths: of the sequences, in tokens.
    """

    heads: int
    kv_heads: int
    size: int
    rule: Rule
    lengths: tuple[int, ...]


def cases(long_context: int) -> dict[str, Case]:
    """Llama 3.1's heads, Gemma 2's, and heads that fill no tile."""
    mixed = (1, 15, 16, 17, 130, long_context)
    return {
        "llama": Case(32, 8, 128, Rule(128**-0.5), mixed),
        "gemma": Case(8, 4, 256, Rule(256**-0.5, window=64, cap=50.0), mixed),
        "odd": Case(10, 2, 80, Rule(80**-0.5), mixed),
    }


class Fed:
    """Sequences of random queries, keys and values, fed to one kernel."""

    def __init__(self, name: AttentionName, case: Case, dtype: torch.dtype, device: torch.device) -> None:
        self._case, self._dtype, self._device = case, dtype, device
        columns = -(-max(case.lengths) // _BLOCK)
        blocks = sum(-(-length // _BLOCK) for length in case.lengths)
        self.shape = KVShape(1, case.heads, case.kv_heads, case.size, _BLOCK, dtype, device)
        self._kernel: PagedAttention = make_attention(name, self.shape, blocks)
        self._inputs = Inputs(len(case.lengths), columns, _BLOCK, device)
        order = torch.randperm(blocks, generator=torch.Generator().manual_seed(1)).tolist()
        self._plan = Plan()  # the first step's brings the tables
        for row, length in enumerate(case.lengths):
            self._plan.extend_table(row, 0, [order.pop() for _ in range(-(-length // _BLOCK))])
        self._random = torch.Generator(device).manual_seed(0)

    def attend(self, counts: list[int], starts: list[int]) -> Tensor:
        """The next tokens of each sequence that has some: [tokens, heads, size]."""
        plan, self._plan = self._plan, Plan()
        for row, (count, start) in enumerate(zip(counts, starts, strict=True)):
            if count:
                plan.rows.append(row)
                plan.starts.append(start)
                plan.counts.append(count)
        self._kernel.begin(self._inputs.step(plan))
        tokens = sum(counts)
        query, key, value = (
            torch.randn(tokens, heads, self.shape.size, generator=self._random, device=self._device).to(self._dtype)
            for heads in (self.shape.heads, self.shape.kv_heads, self.shape.kv_heads)
        )
        self._last = query, key, value
        return self._kernel.attend(0, query, key, value, self._case.rule)

    def again(self) -> Tensor:
        """The last step once more."""
        return self._kernel.attend(0, *self._last, self._case.rule)


def difference(name: AttentionName, case: Case, dtype: torch.dtype, device: torch.device) -> float:
    """The largest difference between a kernel and the gather kernel: prompts in chunks, then one token of each."""
    kernel, reference = Fed(name, case, dtype, device), Fed("gather", case, dtype, device)
    starts, worst = [0] * len(case.lengths), 0.0
    while any(length - start for start, length in zip(starts, case.lengths, strict=True)):
        # All but the last token in chunks; the last ones together, which makes a decode step.
        counts = [min(_CHUNK, length - 1 - start) for start, length in zip(starts, case.lengths, strict=True)]
        if not any(counts):
            counts = [1] * len(counts)
        got, wanted = kernel.attend(counts, starts), reference.attend(counts, starts)
        worst = max(worst, float((got.float() - wanted.float()).abs().max()))
        starts = [start + count for start, count in zip(starts, counts, strict=True)]
    return worst


def decode_speed(sequences: int, context: int, dtype: torch.dtype, device: torch.device) -> dict[str, float]:
    """How fast the best kernel here decodes over contexts of one length.

    Returns:
        Microseconds of one layer, and bytes of keys and values that it reads in a second.
    """
    case = Case(32, 8, 128, Rule(128**-0.5), (context,) * sequences)
    fed = Fed("auto", case, dtype, device)
    fed.attend([1] * sequences, [0] * sequences)  # the rest of the cache is zeros, which cost as much to read
    fed.attend([1] * sequences, [context - 1] * sequences)
    synchronize(device)
    began = time.perf_counter()
    for _ in range(_REPEATS):
        fed.again()
    synchronize(device)
    seconds = (time.perf_counter() - began) / _REPEATS
    read = 2 * sequences * context * fed.shape.kv_heads * fed.shape.size * dtype.itemsize
    return {"microseconds": seconds * 1e6, "bytes_per_second": read / seconds}
