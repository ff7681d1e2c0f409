"""Computes plans: tokens in, one sampled token out for each sequence that is due one."""

from pathlib import Path

import torch
from torch import Tensor

from services.worker.llm import loading
from services.worker.llm.attention import hook
from services.worker.llm.config import SchedulerConfig
from services.worker.llm.forward import Forward
from services.worker.llm.graphs import Capture
from services.worker.llm.group import Group, encode
from services.worker.llm.loading import LanguageModel
from services.worker.llm.options import EngineOptions
from services.worker.llm.plan import Plan
from services.worker.llm.sampler import Sampled, Sampler
from services.worker.llm.sharding import check_ranks, move, shard
from services.worker.llm.stepping import EngineBroken
from services.worker.llm.structured import Grammars


def open_runner(folder: Path, options: EngineOptions) -> "Runner":
    """Loads a model on as many ranks as the options say. Blocks.

    Raises:
        FailedPrecondition, InvalidArgument: see loading.load; or a rank did not come up.
    """
    ranks = options.tensor_parallel_size
    check_ranks(loading.read_config(folder), ranks)
    hook.register()
    tokenizer = loading.load_tokenizer(folder)
    group = Group(folder, options) if ranks > 1 else None
    try:
        language_model = loading.load(folder, options, attention=hook.NAME, device="cpu" if group else "")
        if group is not None:
            device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
            shard(language_model.model, 0, ranks, group.join(device).add_up)
            move(language_model.model, device)
        grammars = Grammars(tokenizer, language_model.vocab_size, language_model.eos_token_ids)
        return Runner(language_model, options, grammars, group)
    except BaseException:
        if group is not None:
            group.close()
        raise


class Runner:
    """One model, and the state of its rows. Called from one thread.

    Args:
        grammars: what constrains structured outputs.
        group: the other ranks, where there are any.
        capture: see Forward.

    Attributes:
        device: where this rank's part is, "cpu" or "cuda:0".
    """

    def __init__(
        self,
        language_model: LanguageModel,
        options: EngineOptions,
        grammars: Grammars,
        group: Group | None = None,
        capture: Capture | None = None,
    ) -> None:
        self._forward = Forward(language_model, options, capture)
        self._group = group
        self._sampler = Sampler(options.max_num_seqs, language_model.vocab_size, language_model.device)
        self.device = str(language_model.device)
        self.config = scheduler_config(language_model, options, self._forward.num_blocks)
        self.grammars = grammars
        if group is not None:
            group.send(str(self._forward.num_blocks).encode())

    def run(self, plan: Plan) -> Sampled:
        """Computes a plan and draws a token for each of `plan.sampling`. Blocks.

        Raises:
            EngineBroken: a rank is gone, or out of step.
        """
        for sequence in plan.admitted:
            if sequence.row >= 0:
                self._sampler.admit(sequence)
        logits = self._logits(plan)
        if logits is None:
            return Sampled([], [])
        sequences = [plan.sequences[place] for place in plan.sampling]
        allowed = self.grammars.allowed(sequences, logits.shape[-1])
        with torch.inference_mode():
            return self._sampler.sample(logits, sequences, allowed)

    def close(self) -> None:
        """Ends the other ranks."""
        if self._group is not None:
            self._group.close()

    def _logits(self, plan: Plan) -> Tensor | None:
        """[sampled, vocabulary]; None if the plan samples nothing."""
        try:
            if self._group is not None:
                self._group.send(encode(plan))
            if plan.sampling:
                return self._forward.logits(plan)
            self._forward.advance(plan)
        except Exception as error:
            if self._group is not None:  # the ranks may be anywhere in the step
                raise EngineBroken(f"a step over {self._group.ranks} ranks failed: {error}") from error
            raise
        return None


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
