"""Models with random weights, made on the device that runs them: nothing is read from a disk."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel

from services.worker.llm.attention import hook
from services.worker.llm.loading import LanguageModel


@dataclass(frozen=True, slots=True)
class Scale:
    """How large everything is that a run measures.

    Attributes:
        config: the model.
        dtype: of weights and KV cache.
        callers: how many requests are under way at a time, one load for each.
        prompt, outputs: tokens of each of them.
        lone_outputs: tokens of the request that is alone.
        kv_memory: bytes.
        buffer: bytes that the memory's speed is measured on; larger than any cache of the device.
        long_context: tokens of the longest context that kernels are compared on.
    """

    config: LlamaConfig
    dtype: torch.dtype
    callers: tuple[int, ...]
    prompt: int
    outputs: int
    lone_outputs: int
    kv_memory: int
    buffer: int
    long_context: int


def full() -> Scale:
    """Llama 3.1 8B's shape in bfloat16, and loads that its cache holds without preemption."""
    config = LlamaConfig(
        vocab_size=128_256,
        hidden_size=4096,
        intermediate_size=14_336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        max_position_embeddings=131_072,
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 500_000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=0,
    )
    return Scale(
        config,
        torch.bfloat16,
        callers=(1, 16, 64, 256),
        prompt=256,
        outputs=128,
        lone_outputs=256,
        kv_memory=16 << 30,
        buffer=4 << 30,
        long_context=16_384,
    )


def tiny() -> Scale:
    """The same in small, which goes through every line in seconds, on a CPU too. Its figures mean nothing."""
    config = LlamaConfig(
        vocab_size=512,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=0,
    )
    return Scale(
        config,
        torch.float32,
        callers=(1, 5),
        prompt=12,
        outputs=6,
        lone_outputs=8,
        kv_memory=16 << 20,
        buffer=4 << 20,
        long_context=200,
    )


def random_model(scale: Scale, device: torch.device, max_model_len: int) -> LanguageModel:
    """The model of a scale."""
    hook.register()
    torch.manual_seed(0)
    with device:
        made: Any = AutoModelForCausalLM.from_config(scale.config, dtype=scale.dtype, attn_implementation=hook.NAME)
    model: PreTrainedModel = made.eval().requires_grad_(False)
    return LanguageModel(
        model=model,
        max_model_len=max_model_len,
        vocab_size=scale.config.vocab_size,
        eos_token_ids=frozenset({0}),
    )


def step_bytes(model: PreTrainedModel) -> int:
    """Bytes of weights that every step reads: all but the embedding, of which it reads a row for each token."""
    embedding: Tensor = model.get_input_embeddings().weight  # type: ignore[assignment]  # nn.Module's types
    weights = sum(weight.numel() * weight.element_size() for weight in model.parameters())
    return weights - (0 if model.config.tie_word_embeddings else embedding.numel() * embedding.element_size())
