"""Drawing tokens from logits: temperature, min-p, top-k, top-p, then the inverse of the distribution function.

One uniform number decides each token (`draws.uniforms`), so a row's token does not depend on the other rows. The order
of the filters is vLLM's: min-p against the best token; top-k; top-p over what is left. Tokens as likely as the last one
that a filter lets pass, pass too.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

# Best tokens that are sorted at first; rows whose filters end behind them must be sorted whole.
_CANDIDATES = 512
# Instead of a token: the row's filters end behind the candidates.
UNDECIDED = -1


@dataclass(frozen=True, slots=True)
class Filters:
    """Of each row; all tensors are [rows].

    Attributes:
        temperature: float32, over 0.
        top_k: int64; the vocabulary's size for all.
        top_p, min_p: float32.
        any: whether any row has a filter at all.
    """

    temperature: Tensor
    top_k: Tensor
    top_p: Tensor
    min_p: Tensor
    any: bool


def choose(logits: Tensor, filters: Filters, uniform: Tensor, *, whole: bool = False) -> Tensor:
    """Token ids, int64 [rows]. Never waits for the device, so it cannot know whether a row is left UNDECIDED.

    Args:
        logits: float32 [rows, vocabulary]; -inf for what may not come.
        uniform: float64 [rows], from 0 to under 1.
        whole: sorts whole rows, which is dear, and leaves none undecided.
    """
    vocabulary = logits.shape[-1]
    probabilities = torch.softmax(logits / filters.temperature[:, None], dim=-1)
    undecided = None
    if filters.any:
        few = not whole and vocabulary > _CANDIDATES
        best = probabilities.topk(_CANDIDATES, dim=-1).values if few else probabilities.sort(-1, descending=True).values
        least, behind = _least(best, filters, vocabulary)
        free = (filters.top_k >= vocabulary) & (filters.top_p >= 1) & (filters.min_p <= 0)
        least = torch.where(free, 0, least)
        undecided = behind & ~free if few else None
        probabilities = torch.where(probabilities >= least[:, None], probabilities, 0)
    mass = torch.cumsum(probabilities, -1, dtype=torch.float64)
    # Over the target strictly: a token without probability is never taken. The last rounding may leave none over it.
    chosen = torch.searchsorted(mass, uniform[:, None] * mass[:, -1:], right=True)
    last = vocabulary - 1 - probabilities.flip(-1).ne(0).to(torch.uint8).argmax(-1, keepdim=True)
    chosen = torch.minimum(chosen, last).squeeze(-1)
    return chosen if undecided is None else torch.where(undecided, UNDECIDED, chosen)


def _least(best: Tensor, filters: Filters, vocabulary: int) -> tuple[Tensor, Tensor]:
    """The least probability that passes, and whether that lies behind the end of `best`, so that it is not known.

    Args:
        best: [rows, candidates], the highest probabilities, sorted.
    """
    candidates = best.shape[-1]
    passes = best >= filters.min_p[:, None] * best[:, :1]
    kth = best.gather(-1, (filters.top_k.clamp(max=candidates) - 1)[:, None])
    passes &= (best >= kth) | (filters.top_k[:, None] > candidates)
    kept = torch.where(passes, best, 0)
    mass = torch.cumsum(kept, -1, dtype=torch.float64)
    cut = passes[:, -1]  # more than the candidates may pass; without other filters all do, with a mass of 1
    whole = torch.where(cut & (filters.top_k > candidates), 1.0, mass[:, -1])
    before = mass - kept
    nucleus = passes & (before < filters.top_p.double()[:, None] * whole[:, None])
    least = torch.where(nucleus, best, torch.inf).amin(-1)
    return least, cut & (nucleus[:, -1] | (filters.top_k < vocabulary) | (filters.min_p > 0))
