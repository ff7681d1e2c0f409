"""Paged attention of torch's own operators: the kernel for machines without a better one, and the others' reference.

Chunks of similar length make a batch, padded to the longest: so there are at most log2(budget) batches, never a loop
over sequences. Each batch gathers its contexts from the blocks.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from services.worker.llm.attention.port import KVShape, Rule, Step


@dataclass(slots=True)
class _Batch:
    """Some chunks of a step, padded.

    Attributes:
        places: int64 [chunks, longest chunk], places among the step's tokens; padding repeats the last token.
        real: bool, same shape: what is no padding.
        blocks: int64 [chunks, blocks of the longest context].
        positions: int64 [chunks, longest chunk].
        contexts: int64 [chunks].
    """

    places: Tensor
    real: Tensor
    blocks: Tensor
    positions: Tensor
    contexts: Tensor


class GatherAttention:
    """Implements PagedAttention on any device and for any shape."""

    def __init__(self, shape: KVShape, num_blocks: int) -> None:
        self.shape = shape
        slots = (shape.layers, num_blocks * shape.block_size, shape.kv_heads, shape.size)
        self._keys = torch.zeros(slots, dtype=shape.dtype, device=shape.device)
        self._values = torch.zeros(slots, dtype=shape.dtype, device=shape.device)
        self._slots = torch.empty(0, dtype=torch.int64)
        self._batches: list[_Batch] = []
        self._masks: dict[int, list[Tensor]] = {}

    def begin(self, step: Step) -> None:
        """Sorts the chunks into batches by the power of two above their length."""
        classes: dict[int, list[int]] = {}
        for chunk, count in enumerate(step.chunk_counts):
            classes.setdefault((count - 1).bit_length(), []).append(chunk)
        self._slots = step.slots
        self._batches = [self._batch(step, chunks) for chunks in classes.values()]
        self._masks = {}

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, rule: Rule) -> Tensor:
        """See the port."""
        keys, values = self._keys[layer], self._values[layer]
        keys.index_copy_(0, self._slots, key)
        values.index_copy_(0, self._slots, value)
        if rule.window not in self._masks:
            self._masks[rule.window] = [self._mask(batch, rule.window) for batch in self._batches]
        output = torch.empty_like(query)
        for batch, mask in zip(self._batches, self._masks[rule.window], strict=True):
            context = (batch.blocks[:, :, None] * self.shape.block_size + self._offsets()).flatten(1)
            attended = _attend(query[batch.places], keys[context], values[context], mask, rule)
            output[batch.places[batch.real]] = attended[batch.real]
        return output

    def _batch(self, step: Step, chunks: list[int]) -> _Batch:
        device = self.shape.device
        some = torch.tensor(chunks, device=device)
        longest = max(step.chunk_counts[chunk] for chunk in chunks)
        context = max(step.chunk_contexts[chunk] for chunk in chunks)
        steps, counts = torch.arange(longest, device=device), step.counts[some].long()[:, None]
        places = step.firsts[some].long()[:, None] + torch.minimum(steps, counts - 1)
        columns = -(-context // self.shape.block_size)
        return _Batch(
            places=places,
            real=steps < counts,
            blocks=step.tables[step.rows[some].long(), :columns].long(),
            positions=step.positions[places],
            contexts=(step.starts + step.counts)[some].long(),
        )

    def _offsets(self) -> Tensor:
        return torch.arange(self.shape.block_size, device=self.shape.device)

    def _mask(self, batch: _Batch, window: int) -> Tensor:
        """bool [chunks, 1, tokens, context]: who sees whom."""
        seen = torch.arange(batch.blocks.shape[1] * self.shape.block_size, device=self.shape.device)
        positions = batch.positions[:, :, None]
        mask = seen <= positions
        if window:
            mask &= seen > positions - window
        return mask[:, None]


def _attend(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor, rule: Rule) -> Tensor:
    """[chunks, tokens, heads, size] over [chunks, context, kv heads, size]."""
    query, keys, values = (t.transpose(1, 2) for t in (query, keys, values))
    # What no token sees may be another sequence's leftovers, and NaN stays NaN whatever is added or multiplied.
    unseen = ~mask.any(2)[..., None]
    keys, values = keys.masked_fill(unseen, 0), values.masked_fill(unseen, 0)
    if not rule.cap:
        attended = scaled_dot_product_attention(query, keys, values, mask, scale=rule.scale, enable_gqa=True)
        return attended.transpose(1, 2)
    group = query.shape[1] // keys.shape[1]
    scores = query @ keys.repeat_interleave(group, 1).transpose(2, 3) * rule.scale
    scores = (torch.tanh(scores / rule.cap) * rule.cap).masked_fill(~mask, -torch.inf)
    weights = scores.softmax(-1, dtype=torch.float32).to(query.dtype)
    return (weights @ values.repeat_interleave(group, 1)).transpose(1, 2)
