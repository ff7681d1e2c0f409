"""What an operator may set of an LLM engine. Names are vLLM's engine arguments where it has one."""

from dataclasses import dataclass
from typing import Literal

from services.common.errors import InvalidArgument

DType = Literal["auto", "float32", "bfloat16", "float16"]
AttentionName = Literal["auto", "native", "gather", "triton"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """Limits and choices of one engine.

    Attributes:
        dtype: of weights and KV cache. "auto": the checkpoint's, but float32 for a 16-bit checkpoint on a processor
            without bfloat16 arithmetic (AVX512_BF16 or AMX), where it would be slower.
        max_model_len: context in tokens; None: the model's own.
        num_blocks: KV blocks; None: as many as `kv_memory` holds.
        kv_memory: bytes for the KV cache; None: 1 GiB on a CPU, most of what is free on a GPU.
        block_size: tokens in a block.
        max_num_seqs: most sequences in a step.
        max_num_batched_tokens: most tokens in a step.
        prefix_caching: whether sequences may share blocks of equal beginnings.
        attention: which kernel; "auto": Triton's on CUDA, the native one on a CPU with a compiler, else gather.
        tensor_parallel_size: ranks that share the model, each a process (see group.py).
        cuda_graphs: whether decode steps are recorded as CUDA graphs (see padded.py). Off by default: it has not run on
            a GPU yet.
        threads: of the CPU, for each rank; 0: as many as torch takes by itself.

    Raises:
        InvalidArgument: a number is too small, or two options do not go together.
    """

    dtype: DType = "auto"
    max_model_len: int | None = None
    num_blocks: int | None = None
    kv_memory: int | None = None
    block_size: int = 16
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 2048
    prefix_caching: bool = True
    attention: AttentionName = "auto"
    tensor_parallel_size: int = 1
    cuda_graphs: bool = False
    threads: int = 0

    def __post_init__(self) -> None:
        for name in ("block_size", "max_num_seqs", "max_num_batched_tokens", "tensor_parallel_size"):
            if getattr(self, name) < 1:
                raise InvalidArgument(f"{name} is {getattr(self, name)}; expected at least 1")
        for name in ("max_model_len", "num_blocks", "kv_memory"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InvalidArgument(f"{name} is {value}; expected at least 1, or nothing")
        if self.cuda_graphs and self.tensor_parallel_size > 1:
            raise InvalidArgument(
                "cuda_graphs are for models on one device; set tensor_parallel_size to 1, or leave it"
            )
