"""The port of an attention kernel, which owns the KV cache in the layout that it reads best."""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class KVShape:
    """What one model keeps of each token.

    Attributes:
        layers: layers with attention.
        heads, kv_heads: query heads and key/value heads of a layer; the first is a multiple of the second.
        size: elements of a head.
        block_size: tokens in a block.
    """

    layers: int
    heads: int
    kv_heads: int
    size: int
    block_size: int
    dtype: torch.dtype
    device: torch.device

    @property
    def block_bytes(self) -> int:
        """Bytes of one block over all layers, keys and values."""
        return 2 * self.layers * self.kv_heads * self.size * self.block_size * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class Step:
    """Where the tokens of one step belong. Tensors lie on the model's device.

    Attributes:
        tables: int32 [rows, columns], block tables of all rows: position p of row r is in block
            tables[r, p // block_size].
        rows, firsts, starts, counts: int32, one for each chunk: its row; the place of its first token among the step's
            tokens; the position of that token; how many tokens it has.
        positions: int64 [tokens].
        slots: int64 [tokens], block * block_size + offset: where the token's key and value go.
        chunk_counts, chunk_contexts: counts, and contexts after the step, on the host.
    """

    tables: Tensor
    rows: Tensor
    firsts: Tensor
    starts: Tensor
    counts: Tensor
    positions: Tensor
    slots: Tensor
    chunk_counts: list[int]
    chunk_contexts: list[int]


class Rule(NamedTuple):
    """How a layer weighs what it sees.

    Attributes:
        scale: scores are products times this.
        window: tokens that one sees, itself included; 0: all.
        cap: scores become cap * tanh(score / cap), as in Gemma 2; 0: they stay.
    """

    scale: float
    window: int = 0
    cap: float = 0.0


class PagedAttention(Protocol):
    """Called from one thread."""

    shape: KVShape

    def begin(self, step: Step) -> None:
        """A new step: whatever is the same for all of its layers is worked out here."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, rule: Rule) -> Tensor:
        """Stores a layer's new keys and values, then lets every token see its context, itself included.

        Args:
            query: [tokens, heads, size].
            key, value: [tokens, kv_heads, size].

        Returns:
            [tokens, heads, size].
        """
