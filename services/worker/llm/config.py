"""What bounds the LLM scheduler. Names are vLLM's engine arguments where it has one."""

from dataclasses import dataclass

from services.common.errors import InvalidArgument


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerConfig:
    """Limits of one engine.

    Attributes:
        max_model_len: the model's context, prompt and output together, in tokens.
        vocab_size: token ids run from 0 to vocab_size - 1.
        num_blocks: KV blocks in the pool.
        block_size: tokens in a block.
        max_num_seqs: most sequences in a step, which is also the number of rows a runner keeps state for.
        max_num_batched_tokens: the token budget of a step.
        eos_token_ids: the model's end tokens.
        prefix_caching: whether full blocks are kept for other sequences that begin alike.

    Raises:
        InvalidArgument: the limits cannot work together.
    """

    max_model_len: int
    vocab_size: int
    num_blocks: int
    block_size: int = 16
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 2048
    eos_token_ids: frozenset[int] = frozenset()
    prefix_caching: bool = True

    def __post_init__(self) -> None:
        names = ("max_model_len", "vocab_size", "num_blocks", "block_size", "max_num_seqs", "max_num_batched_tokens")
        for name in names:
            if getattr(self, name) < 1:
                raise InvalidArgument(f"{name} is {getattr(self, name)}; expected at least 1")
        if self.max_num_batched_tokens < self.max_num_seqs:
            raise InvalidArgument(
                f"max_num_batched_tokens ({self.max_num_batched_tokens}) is under max_num_seqs ({self.max_num_seqs}); "
                "each running sequence needs a token of every step: raise the one or lower the other"
            )

    @property
    def max_stored_tokens(self) -> int:
        """Tokens of one sequence that the pool can hold when nothing else runs."""
        return self.num_blocks * self.block_size
