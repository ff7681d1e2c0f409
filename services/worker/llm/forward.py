"""A model on one device with its KV cache: plans in, hidden states stored, logits out. The part that every rank has."""

from typing import Any

import torch
from torch import Tensor

from services.worker.llm.attention import make_attention
from services.worker.llm.cache import block_count, kv_shape
from services.worker.llm.inputs import Inputs
from services.worker.llm.linears import can_pack, pack_linears
from services.worker.llm.loading import LanguageModel
from services.worker.llm.options import EngineOptions
from services.worker.llm.plan import Plan


class Forward:
    """Called from one thread.

    Attributes:
        num_blocks: blocks of the KV cache.
    """

    def __init__(self, language_model: LanguageModel, options: EngineOptions) -> None:
        model = self._model = language_model.model
        device, dtype = language_model.device, model.dtype
        shape = kv_shape(model.config, options, dtype=dtype, device=device)
        self.num_blocks = block_count(shape, options, language_model.max_model_len)
        self._attention = make_attention(options.attention, shape, self.num_blocks)
        if can_pack(dtype, device):
            pack_linears(model)
        columns = -(-language_model.max_model_len // options.block_size)
        self._inputs = Inputs(options.max_num_seqs, columns, options.block_size, device)

    @torch.inference_mode()
    def logits(self, plan: Plan) -> Tensor:
        """Computes a plan: [sampled, vocabulary]."""
        arguments = self._begin(plan)
        logits: Tensor = self._model(**arguments, logits_to_keep=self._inputs.last_tokens(plan)).logits
        return logits[0]

    @torch.inference_mode()
    def advance(self, plan: Plan) -> None:
        """Computes a plan of which no logits are wanted: the vocabulary's layer is dear."""
        self._model.base_model(**self._begin(plan))

    def _begin(self, plan: Plan) -> dict[str, Any]:
        step = self._inputs.step(plan)
        self._attention.begin(step)
        return {
            "input_ids": self._inputs.tokens(plan)[None],
            "position_ids": step.positions[None],
            "use_cache": False,
            "paged": self._attention,
        }
