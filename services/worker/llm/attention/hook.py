"""How transformers' models come to our kernels: a function registered under a name, and an argument that it finds."""

from typing import Any

from torch import Tensor, nn
from transformers import AttentionInterface

from services.worker.llm.attention.port import PagedAttention, Rule

NAME = "headrace_paged"


def register() -> None:
    """Makes the name known to transformers; again: does nothing new."""
    AttentionInterface.register(NAME, attend)


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    paged: PagedAttention,
    scaling: float,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """What transformers' attention layers call, with the `paged` that the model's forward was given.

    Args:
        query, key, value: [1, heads, tokens, size]; the step's tokens are one flat sequence.

    Returns:
        [1, tokens, heads, size], and no attention weights.
    """
    layer: int = module.layer_idx  # type: ignore[assignment]  # nn.Module types every attribute as Tensor | Module
    rule = Rule(scaling, sliding_window or 0, softcap or 0.0)
    query, key, value = (t.squeeze(0).transpose(0, 1) for t in (query, key, value))
    return paged.attend(layer, query, key, value, rule).unsqueeze(0), None
