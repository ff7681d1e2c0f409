"""The model and the three workloads that LLM engines are compared on."""

import random
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tests.support.llm_models import tokenizer

VOCABULARY = 32_000


@dataclass(frozen=True, slots=True)
class Work:
    """One request: token ids in, so many out, end tokens ignored."""

    prompt: tuple[int, ...]
    outputs: int


def save_100m(folder: Path, dtype: torch.dtype) -> Path:
    """A Llama of 100 million parameters."""
    if (folder / "model.safetensors").exists():
        return folder
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=768,
        intermediate_size=2048,
        num_hidden_layers=12,
        num_attention_heads=12,
        num_key_value_heads=4,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=0,
    )
    return save_random(folder, config, dtype)


def save_random(folder: Path, config: LlamaConfig, dtype: torch.dtype = torch.float32) -> Path:
    """A Llama with random weights, scaled so that its outputs vary, and a tokenizer."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    for name, weight in model.named_parameters():
        if weight.dim() == 2 and "embed" not in name:
            weight.data *= 4 if "q_proj" in name or "k_proj" in name else 2
    for weight in model.parameters():
        weight.data = weight.data.to(dtype)
    model.save_pretrained(folder)
    tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def workloads(seed: int = 0) -> dict[str, list[Work]]:
    """A: one request; B: 32 of mixed lengths; C: 32 that share a beginning of 512 tokens."""
    chance = random.Random(seed)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(chance.randrange(1, VOCABULARY) for _ in range(count))

    shared = tokens(512)
    return {
        "A": [Work(tokens(128), 128)],
        "B": [Work(tokens(chance.randint(16, 256)), chance.randint(16, 192)) for _ in range(32)],
        "C": [Work((*shared, *tokens(32)), 64) for _ in range(32)],
    }
