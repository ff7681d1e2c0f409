"""How large the KV cache of a model is: what a token costs, and how many blocks there are."""

import torch
from transformers import PreTrainedConfig

from services.common.errors import InvalidArgument
from services.worker.llm.attention.port import KVShape
from services.worker.llm.options import EngineOptions

_CPU_BYTES = 1 << 30
# Of a GPU's free memory after the weights are there; the rest is for activations and the allocator's slack.
_GPU_SHARE = 0.85


def kv_shape(config: PreTrainedConfig, options: EngineOptions, *, dtype: torch.dtype, device: torch.device) -> KVShape:
    """What one of the model's tensor-parallel ranks keeps of a token."""
    heads, ranks = int(config.num_attention_heads), options.tensor_parallel_size
    return KVShape(
        layers=config.num_hidden_layers,
        heads=heads // ranks,
        kv_heads=(getattr(config, "num_key_value_heads", None) or heads) // ranks,
        size=getattr(config, "head_dim", None) or config.hidden_size // heads,
        block_size=options.block_size,
        dtype=dtype,
        device=device,
    )


def block_count(shape: KVShape, options: EngineOptions, max_model_len: int) -> int:
    """Blocks of the pool: as many as asked for, or as memory holds, but never more than all rows can fill.

    Raises:
        InvalidArgument: the memory holds not even one block.
    """
    if options.num_blocks is not None:
        return options.num_blocks
    memory = options.kv_memory or _default_memory(shape.device)
    count = min(memory // shape.block_bytes, options.max_num_seqs * -(-max_model_len // shape.block_size))
    if count < 1:
        raise InvalidArgument(
            f"kv_memory is {memory} bytes, but one block of {shape.block_size} tokens takes {shape.block_bytes};"
            " raise it"
        )
    return count


def _default_memory(device: torch.device) -> int:
    if device.type != "cuda":
        return _CPU_BYTES
    free, _ = torch.cuda.mem_get_info(device)
    return int(free * _GPU_SHARE)
