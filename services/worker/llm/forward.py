"""A model on one device with its KV cache: plans in, hidden states stored, logits out. The part that every rank has."""

from typing import Any

import torch
from torch import Tensor

from services.worker.llm import graphs
from services.worker.llm.attention import make_attention
from services.worker.llm.attention.port import Step
from services.worker.llm.cache import block_count, kv_shape
from services.worker.llm.inputs import Inputs
from services.worker.llm.linears import can_pack, pack_linears
from services.worker.llm.loading import LanguageModel
from services.worker.llm.options import EngineOptions
from services.worker.llm.padded import PaddedDecode
from services.worker.llm.plan import Plan


class Forward:
    """Called from one thread.

    Args:
        capture: how decode steps of fixed sizes are recorded; None: as CUDA graphs if the options say so, else there
            are none.

    Attributes:
        num_blocks: blocks of the KV cache.

    Raises:
        FailedPrecondition: the options ask for CUDA graphs, and there can be none.
    """

    def __init__(
        self, language_model: LanguageModel, options: EngineOptions, capture: graphs.Capture | None = None
    ) -> None:
        model = self._model = language_model.model
        device, dtype = language_model.device, model.dtype
        if capture is None and options.cuda_graphs:
            capture = graphs.on_cuda(device)
        shape = kv_shape(model.config, options, dtype=dtype, device=device)
        self.num_blocks = block_count(shape, options, language_model.max_model_len)
        # Padding has a block of its own, behind those that the scheduler knows.
        self._attention = make_attention(options.attention, shape, self.num_blocks + (capture is not None))
        if can_pack(dtype, device):
            pack_linears(model)
        columns = -(-language_model.max_model_len // options.block_size)
        self._inputs = Inputs(options.max_num_seqs, columns, options.block_size, device, self.num_blocks)
        self._decode: PaddedDecode | None = None
        if capture is not None:
            self._decode = PaddedDecode(
                self._all_logits,
                self._inputs,
                most=options.max_num_seqs,
                max_model_len=language_model.max_model_len,
                logits=torch.empty(options.max_num_seqs, language_model.vocab_size, dtype=dtype, device=device),
                capture=capture,
            )

    @torch.inference_mode()
    def logits(self, plan: Plan) -> Tensor:
        """Computes a plan: [sampled, vocabulary]; good until the next one."""
        if self._decode is not None and self._decode.takes(plan):
            return self._decode.logits(plan)
        arguments = self._begin(self._inputs.tokens(plan), self._inputs.step(plan))
        logits: Tensor = self._model(**arguments, logits_to_keep=self._inputs.last_tokens(plan)).logits
        return logits[0]

    @torch.inference_mode()
    def advance(self, plan: Plan) -> None:
        """Computes a plan of which no logits are wanted: the vocabulary's layer is dear."""
        self._model.base_model(**self._begin(self._inputs.tokens(plan), self._inputs.step(plan)))

    def _all_logits(self, tokens: Tensor, step: Step) -> Tensor:
        logits: Tensor = self._model(**self._begin(tokens, step)).logits
        return logits[0]

    def _begin(self, tokens: Tensor, step: Step) -> dict[str, Any]:
        self._attention.begin(step)
        return {
            "input_ids": tokens[None],
            "position_ids": step.positions[None],
            "use_cache": False,
            "paged": self._attention,
        }
