"""Paged attention in Triton, for CUDA: one kernel for decode and prefill, with online softmax over tiles of keys.

A program takes one kv head and some query rows of one chunk; a row is one query head of one token, so that the heads
that share a kv head share its loads (as in FlashDecoding's grouped form). The grid is made of the step's chunks, like
the native kernel's pieces of work. Sequences are not split along their keys, so a single long context fills a large
GPU only with its kv heads.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from services.common.errors import FailedPrecondition
from services.worker.llm.attention.port import KVShape, Rule, Step

# Query rows and keys of a tile; tl.dot takes no fewer than 16 rows.
_ROWS = 16
_PREFILL_ROWS = 64
_KEYS = 64


@triton.jit  # type: ignore[untyped-decorator]
def _attend(  # type: ignore[no-untyped-def]  # Triton's language has no types
    query,
    keys,
    values,
    output,
    tables,
    columns,
    tile_chunks,
    tile_tokens,
    rows,
    firsts,
    starts,
    counts,
    query_token,
    query_head,
    scale,
    cap,
    window,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    SIZE: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
    KEYS: tl.constexpr,
    CAPPED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    tile, kv_head = tl.program_id(0), tl.program_id(1)
    GROUP: tl.constexpr = HEADS // KV_HEADS
    chunk = tl.load(tile_chunks + tile)
    first_token = tl.load(tile_tokens + tile)
    table = tables + tl.load(rows + chunk).to(tl.int64) * columns
    place = tl.load(firsts + chunk) + first_token
    start = tl.load(starts + chunk) + first_token
    left = (tl.load(counts + chunk) - first_token) * GROUP

    row = tl.arange(0, ROWS)
    token = row // GROUP
    head = kv_head * GROUP + row % GROUP
    element = tl.arange(0, WIDTH)
    real = (row < left) & (token < ROWS // GROUP)
    inside = real[:, None] & (element < SIZE)[None, :]
    at = (place + token).to(tl.int64)
    q = tl.load(
        query + at[:, None] * query_token + head[:, None] * query_head + element[None, :], mask=inside, other=0.0
    )
    position = start + token
    last = start + (tl.minimum(left, (ROWS // GROUP) * GROUP) - 1) // GROUP
    begin = 0
    if window > 0:
        begin = tl.maximum(0, start - window + 1) // KEYS * KEYS

    best = tl.full([ROWS], -float("inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    sums = tl.zeros([ROWS, WIDTH], tl.float32)
    for offset in range(begin, last + 1, KEYS):
        key = offset + tl.arange(0, KEYS)
        known = key <= last
        if window > 0:
            known = known & (key > start - window)
        block = tl.load(table + key // BLOCK, mask=known, other=0).to(tl.int64)
        where = ((block * BLOCK + key % BLOCK) * KV_HEADS + kv_head) * SIZE
        part = known[:, None] & (element < SIZE)[None, :]
        k = tl.load(keys + where[:, None] + element[None, :], mask=part, other=0.0)
        scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * scale
        if CAPPED:
            # tanh(x) = 2 / (1 + e^-2x) - 1
            scores = cap * (2.0 / (1.0 + tl.exp(-2.0 * scores / cap)) - 1.0)
        seen = known[None, :] & (key[None, :] <= position[:, None])
        if window > 0:
            seen = seen & (key[None, :] > position[:, None] - window)
        scores = tl.where(seen, scores, -float("inf"))
        new_best = tl.maximum(best, tl.max(scores, 1))
        # A row that has seen nothing yet: any finite number keeps inf - inf away.
        shift = tl.where(new_best == -float("inf"), 0.0, new_best)
        weights = tl.exp(scores - shift[:, None])
        shrink = tl.exp(best - shift)
        v = tl.load(values + where[:, None] + element[None, :], mask=part, other=0.0)
        sums = sums * shrink[:, None] + tl.dot(weights.to(v.dtype), v, input_precision=PRECISION)
        total = total * shrink + tl.sum(weights, 1)
        best = new_best
    total = tl.where(total > 0, total, 1.0)
    result = (sums / total[:, None]).to(output.dtype.element_ty)
    tl.store(output + (at[:, None] * HEADS + head[:, None]) * SIZE + element[None, :], result, mask=inside)


class TritonAttention:
    """Implements PagedAttention on CUDA.

    Raises:
        FailedPrecondition: more heads share a kv head than a tile has rows.
    """

    def __init__(self, shape: KVShape, num_blocks: int) -> None:
        self.shape = shape
        self._group = shape.heads // shape.kv_heads
        if self._group > _PREFILL_ROWS:
            raise FailedPrecondition(f"triton attention takes at most {_PREFILL_ROWS} heads for a kv head")
        slots = (shape.layers, num_blocks * shape.block_size, shape.kv_heads, shape.size)
        self._keys = torch.zeros(slots, dtype=shape.dtype, device=shape.device)
        self._values = torch.zeros(slots, dtype=shape.dtype, device=shape.device)
        self._step: Step
        self._tile_chunks = self._tile_tokens = torch.empty(0)
        self._rows = _ROWS

    def begin(self, step: Step) -> None:
        """Cuts the step's chunks into tiles of query rows: small ones where every chunk is a single token."""
        self._step = step
        least = _ROWS if max(step.chunk_counts) == 1 else _PREFILL_ROWS
        self._rows = max(least, triton.next_power_of_2(self._group))
        tokens = self._rows // self._group
        tiles = [(chunk, token) for chunk, count in enumerate(step.chunk_counts) for token in range(0, count, tokens)]
        cut = torch.tensor(tiles, dtype=torch.int32).to(self.shape.device, non_blocking=True)
        self._tile_chunks, self._tile_tokens = cut.t().contiguous()

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, rule: Rule) -> Tensor:
        """See the port."""
        shape, step = self.shape, self._step
        keys, values = self._keys[layer], self._values[layer]
        keys.index_copy_(0, step.slots, key)
        values.index_copy_(0, step.slots, value)
        query = query if query.stride(-1) == 1 else query.contiguous()
        output = query.new_empty(query.shape)
        _attend[(len(self._tile_chunks), shape.kv_heads)](
            query, keys, values, output,
            step.tables, step.tables.stride(0), self._tile_chunks, self._tile_tokens,
            step.rows, step.firsts, step.starts, step.counts,
            query.stride(0), query.stride(1), rule.scale, rule.cap, rule.window,
            HEADS=shape.heads,
            KV_HEADS=shape.kv_heads,
            SIZE=shape.size,
            WIDTH=max(16, triton.next_power_of_2(shape.size)),
            BLOCK=shape.block_size,
            ROWS=self._rows,
            KEYS=_KEYS,
            CAPPED=rule.cap > 0,
            PRECISION="ieee",  # TF32 would round float32 to ten bits; 16-bit types do not care
        )  # fmt: skip
        return output
