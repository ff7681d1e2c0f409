"""Tensor parallelism: each rank keeps its heads and its part of every MLP, and sums with the others twice a layer.

The cut is Megatron-LM's (Shoeybi et al. 2019), by the plan that transformers' configurations carry: a "colwise" layer
keeps its rank's rows of the weight, so that its outputs are a part; a "rowwise" one behind it keeps the columns that
take this part, and the ranks' results are added up. Embeddings, norms and the vocabulary's layer are whole everywhere.
"""

import re
from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from services.common.errors import InvalidArgument

Sum = Callable[[Tensor], Tensor]


class SummedLinear(nn.Module):
    """A "rowwise" layer: this rank's part, then the sum over the ranks, then the bias."""

    def __init__(self, part: nn.Linear, bias: Tensor | None, add_up: Sum) -> None:
        super().__init__()
        self.part = part
        self._bias = bias
        self._add_up = add_up

    def forward(self, x: Tensor) -> Tensor:
        """[…, a rank's inputs] → […, out]."""
        y = self._add_up(self.part(x))
        return y if self._bias is None else y + self._bias


def check_ranks(config: PreTrainedConfig, ranks: int) -> None:
    """Whether a model can be cut so.

    Raises:
        InvalidArgument: transformers has no plan for it, or something does not divide.
    """
    if ranks == 1:
        return
    if not getattr(config, "base_model_tp_plan", None):
        raise InvalidArgument(f"{config.model_type} models have no tensor-parallel plan; set tensor_parallel_size to 1")
    for name in ("num_attention_heads", "num_key_value_heads", "intermediate_size"):
        if getattr(config, name) % ranks:
            raise InvalidArgument(
                f"tensor_parallel_size is {ranks}, which does not divide the model's {name}, {getattr(config, name)}"
            )


def shard(model: PreTrainedModel, rank: int, ranks: int, add_up: Sum) -> None:
    """Cuts a whole model to one rank's part, in place."""
    check_ranks(model.config, ranks)
    base = model.base_model
    for pattern, style in (model.config.base_model_tp_plan or {}).items():
        wanted = re.compile(re.escape(pattern).replace(r"\*", r"\d+"))
        for name in [name for name, _ in base.named_modules() if wanted.fullmatch(name)]:
            parent, _, child = name.rpartition(".")
            holder, linear = base.get_submodule(parent), base.get_submodule(name)
            if not isinstance(linear, nn.Linear):
                continue  # norms over single heads, which every rank has whole
            if style == "colwise":
                setattr(holder, child, _part(linear, rank, ranks, axis=0))
            elif style == "rowwise":
                bias = None if linear.bias is None else linear.bias.detach()
                setattr(holder, child, SummedLinear(_part(linear, rank, ranks, axis=1), bias, add_up))
            else:
                raise InvalidArgument(f"{name}: style '{style}' of transformers' plan is not known here")


def move(model: nn.Module, device: torch.device) -> None:
    """To a rank's device, once it is cut: the whole may not fit there."""
    model.to(device)


def _part(linear: nn.Linear, rank: int, ranks: int, *, axis: int) -> nn.Linear:
    """A rank's rows of the weight and of the bias (axis 0), or its columns without bias (axis 1)."""
    weight = linear.weight.detach().chunk(ranks, axis)[rank].clone()
    part = nn.Linear(weight.shape[1], weight.shape[0], bias=axis == 0 and linear.bias is not None, device="meta")
    part.weight = nn.Parameter(weight, requires_grad=False)
    if part.bias is not None:
        part.bias = nn.Parameter(linear.bias.detach().chunk(ranks)[rank].clone(), requires_grad=False)
    return part
