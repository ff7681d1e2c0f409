"""Paged attention in Triton, for CUDA: one kernel for decode and prefill, with online softmax over tiles of keys.

A program takes one kv head and some query rows of one chunk; a row is one query head of one token, so that the heads
that share a kv head share its loads. The grid is made of the step's chunks, like the native kernel's pieces of work.
Where these are too few to fill the GPU, each is split along its keys, and a second kernel joins the parts, as in
FlashDecoding (Dao et al. 2023). How many parts there are is a matter of the step's shape and not of what its contexts
hold, and a decode step needs nothing from the host: so it can be recorded as a CUDA graph.
"""

from typing import Any

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from services.common.errors import FailedPrecondition
from services.worker.llm.attention.port import KVShape, Rule, Step
from services.worker.llm.attention.splitting import MOST_PARTS, parts
from services.worker.llm.transfer import send

# Query rows and keys of a tile; tl.dot takes no fewer than 16 rows.
_ROWS = 16
_PREFILL_ROWS = 64
_KEYS = 64
# Programs that fill one of the GPU's processors.
_PROGRAMS = 2
# Without a GPU, in Triton's interpreter: an H100's, so that tests split as one does.
_PROCESSORS = 132


# How many parts there are changes from step to step, and must not mean another compilation.
@triton.jit(do_not_specialize=["parts"])  # type: ignore[untyped-decorator]
def _attend(  # type: ignore[no-untyped-def]  # Triton's language has no types
    query,
    keys,
    values,
    output,
    part_sums,
    part_weights,
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
    parts,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    SIZE: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
    KEYS: tl.constexpr,
    SPLIT: tl.constexpr,
    DECODE: tl.constexpr,
    CAPPED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    tile, kv_head, part = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    GROUP: tl.constexpr = HEADS // KV_HEADS
    if DECODE:
        chunk = tile
        first_token = 0
    else:
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
    end = last + 1
    if SPLIT:
        each = tl.cdiv(tl.cdiv(end - begin, parts), KEYS) * KEYS
        begin = begin + part * each
        end = tl.minimum(end, begin + each)

    best = tl.full([ROWS], -float("inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    sums = tl.zeros([ROWS, WIDTH], tl.float32)
    for offset in range(begin, end, KEYS):
        key = offset + tl.arange(0, KEYS)
        known = key <= last
        if window > 0:
            known = known & (key > start - window)
        block = tl.load(table + key // BLOCK, mask=known, other=0).to(tl.int64)
        where = ((block * BLOCK + key % BLOCK) * KV_HEADS + kv_head) * SIZE
        loaded = known[:, None] & (element < SIZE)[None, :]
        k = tl.load(keys + where[:, None] + element[None, :], mask=loaded, other=0.0)
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
        v = tl.load(values + where[:, None] + element[None, :], mask=loaded, other=0.0)
        sums = sums * shrink[:, None] + tl.dot(weights.to(v.dtype), v, input_precision=PRECISION)
        total = total * shrink + tl.sum(weights, 1)
        best = new_best
    where = at * HEADS + head
    if SPLIT:
        slot = where * parts + part
        tl.store(part_weights + slot * 2, best, mask=real)
        tl.store(part_weights + slot * 2 + 1, total, mask=real)
        tl.store(part_sums + slot[:, None] * WIDTH + element[None, :], sums, mask=real[:, None])
    else:
        total = tl.where(total > 0, total, 1.0)
        result = (sums / total[:, None]).to(output.dtype.element_ty)
        tl.store(output + where[:, None] * SIZE + element[None, :], result, mask=inside)


@triton.jit(do_not_specialize=["parts"])  # type: ignore[untyped-decorator]
def _join(  # type: ignore[no-untyped-def]  # Triton's language has no types
    output, part_sums, part_weights, parts, SIZE: tl.constexpr, WIDTH: tl.constexpr, MOST: tl.constexpr
):
    """One query head of one token: the parts' sums, each by the weight that its best score has beside the best."""
    place = tl.program_id(0).to(tl.int64)
    part, element = tl.arange(0, MOST), tl.arange(0, WIDTH)
    real, slot = part < parts, place * parts + part
    # A part without keys has a best of -inf, and counts for nothing; the part with the token itself has one.
    best = tl.load(part_weights + slot * 2, mask=real, other=-float("inf"))
    weight = tl.exp(best - tl.max(best, 0))
    total = tl.sum(tl.load(part_weights + slot * 2 + 1, mask=real, other=0.0) * weight, 0)
    sums = tl.load(part_sums + slot[:, None] * WIDTH + element[None, :], mask=real[:, None], other=0.0)
    result = tl.sum(sums * weight[:, None], 0) / total
    tl.store(output + place * SIZE + element, result.to(output.dtype.element_ty), mask=element < SIZE)


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
        on_cuda = shape.device.type == "cuda"
        processors = torch.cuda.get_device_properties(shape.device).multi_processor_count if on_cuda else _PROCESSORS
        self._programs = _PROGRAMS * processors
        self._step: Step
        self._cut: tuple[Tensor, Tensor] | None = None
        self._tiles = self._parts = 1
        self._rows = _ROWS

    def begin(self, step: Step) -> None:
        """Cuts the step's chunks into tiles of query rows, and the tiles into parts where they are few."""
        self._step = step
        decode = max(step.chunk_counts) == 1
        self._rows = max(_ROWS if decode else _PREFILL_ROWS, triton.next_power_of_2(self._group))
        self._tiles, self._cut = len(step.chunk_counts), None
        if not decode:
            tokens = self._rows // self._group
            tiles = [(chunk, first) for chunk, n in enumerate(step.chunk_counts) for first in range(0, n, tokens)]
            chunks, firsts = send(np.ascontiguousarray(np.array(tiles, np.int32).T), self.shape.device)
            self._tiles, self._cut = len(tiles), (chunks, firsts)
        self._parts = parts(self._tiles * self.shape.kv_heads, max(step.chunk_contexts), self._programs)

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, rule: Rule) -> Tensor:
        """See the port."""
        shape, step, count = self.shape, self._step, self._parts
        keys, values = self._keys[layer], self._values[layer]
        keys.index_copy_(0, step.slots, key)
        values.index_copy_(0, step.slots, value)
        query = query if query.stride(-1) == 1 else query.contiguous()
        output = query.new_empty(query.shape)
        results = query.shape[0] * shape.heads
        sums = weights = output
        if count > 1:
            sums = query.new_empty(results, count, width(shape), dtype=torch.float32)
            weights = query.new_empty(results, count, 2, dtype=torch.float32)
        tile_chunks, tile_tokens = self._cut or (step.rows, step.rows)  # what a decode step does not read
        _attend[(self._tiles, shape.kv_heads, count)](
            query, keys, values, output, sums, weights,
            step.tables, step.tables.stride(0), tile_chunks, tile_tokens,
            step.rows, step.firsts, step.starts, step.counts,
            query.stride(0), query.stride(1), rule.scale, rule.cap, rule.window, count,
            **constants(shape, rows=self._rows, split=count > 1, decode=self._cut is None, capped=rule.cap > 0),
            num_stages=stages(shape.dtype),
        )  # fmt: skip
        if count > 1:
            _join[(results,)](output, sums, weights, count, SIZE=shape.size, WIDTH=width(shape), MOST=MOST_PARTS)
        return output


def width(shape: KVShape) -> int:
    """Elements of a head as a tile has them: a power of two, and as many as tl.dot takes at least."""
    return int(max(16, triton.next_power_of_2(shape.size)))


def stages(dtype: torch.dtype) -> int:
    """Tiles of keys that are loaded ahead: the more, the more shared memory, of which float32 takes twice as much."""
    return 1 if dtype == torch.float32 else 3


def constants(shape: KVShape, *, rows: int, split: bool, decode: bool, capped: bool) -> dict[str, Any]:
    """What the kernel is compiled for.

    Args:
        split: programs share a chunk's keys, and another kernel joins what they find.
        decode: every chunk is a single token.
    """
    return {
        "HEADS": shape.heads,
        "KV_HEADS": shape.kv_heads,
        "SIZE": shape.size,
        "WIDTH": width(shape),
        "BLOCK": shape.block_size,
        "ROWS": rows,
        "KEYS": _KEYS,
        "SPLIT": split,
        "DECODE": decode,
        "CAPPED": capped,
        "PRECISION": "ieee",  # TF32 would round float32 to ten bits; 16-bit types do not care
    }
