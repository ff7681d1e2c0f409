"""Computes plans: tokens in, one sampled token out for each sequence that is due one."""

import torch
from torch import Tensor

from services.worker.llm.attention import make_attention
from services.worker.llm.cache import block_count, kv_shape
from services.worker.llm.config import SchedulerConfig
from services.worker.llm.inputs import Inputs
from services.worker.llm.linears import can_pack, pack_linears
from services.worker.llm.loading import LanguageModel
from services.worker.llm.options import EngineOptions
from services.worker.llm.plan import Plan
from services.worker.llm.sampler import Sampled, Sampler
from services.worker.llm.structured import Grammars


class Runner:
    """One model on one device, its KV cache, and the state of its rows. Called from one thread.

    Args:
        grammars: what constrains structured outputs.
    """

    def __init__(self, language_model: LanguageModel, options: EngineOptions, grammars: Grammars) -> None:
        model = self._model = language_model.model
        device, dtype = language_model.device, model.dtype
        shape = kv_shape(model.config, options, dtype=dtype, device=device)
        blocks = block_count(shape, options, language_model.max_model_len)
        self.config = scheduler_config(language_model, options, blocks)
        self._attention = make_attention(options.attention, shape, blocks)
        if can_pack(dtype, device):
            pack_linears(model)
        columns = -(-language_model.max_model_len // options.block_size)
        self._inputs = Inputs(options.max_num_seqs, columns, options.block_size, device)
        self._sampler = Sampler(options.max_num_seqs, language_model.vocab_size, device)
        self.grammars = grammars

    @torch.inference_mode()
    def run(self, plan: Plan) -> Sampled:
        """Computes a plan and draws a token for each of `plan.sampling`. Blocks."""
        for sequence in plan.admitted:
            if sequence.row >= 0:
                self._sampler.admit(sequence)
        logits = self._logits(plan)
        if logits is None:
            return Sampled([], [])
        sequences = [plan.sequences[place] for place in plan.sampling]
        allowed = self.grammars.allowed(sequences, logits.shape[-1])
        return self._sampler.sample(logits, sequences, allowed)

    def _logits(self, plan: Plan) -> Tensor | None:
        """[sampled, vocabulary]; None if the plan samples nothing."""
        step = self._inputs.step(plan)
        self._attention.begin(step)
        arguments = {
            "input_ids": self._inputs.tokens(plan)[None],
            "position_ids": step.positions[None],
            "use_cache": False,
            "paged": self._attention,
        }
        if not plan.sampling:
            self._model.base_model(**arguments)  # no logits are wanted, and a vocabulary is dear
            return None
        logits: Tensor = self._model(**arguments, logits_to_keep=self._inputs.last_tokens(plan)).logits
        return logits[0]


def scheduler_config(language_model: LanguageModel, options: EngineOptions, num_blocks: int) -> SchedulerConfig:
    """The limits that a model and its cache set the scheduler."""
    return SchedulerConfig(
        max_model_len=language_model.max_model_len,
        vocab_size=language_model.vocab_size,
        num_blocks=num_blocks,
        block_size=options.block_size,
        max_num_seqs=options.max_num_seqs,
        max_num_batched_tokens=options.max_num_batched_tokens,
        eos_token_ids=language_model.eos_token_ids,
        prefix_caching=options.prefix_caching,
    )
