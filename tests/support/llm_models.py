"""Small random language models of every family, as Hugging Face folders, and transformers' generate() as the oracle."""

from collections.abc import Sequence as Run
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM

VOCABULARY = 512
EOS = 0
_COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "bos_token_id": None,
    "eos_token_id": EOS,
    "pad_token_id": None,
}
_LAYER_TYPES = ["sliding_attention", "full_attention", "sliding_attention"]
# Windows are shorter than the tests' sequences; soft caps are low enough to bend scores.
FAMILIES: dict[str, dict[str, object]] = {
    "llama": {**_COMMON, "tie_word_embeddings": True},
    "mistral": {**_COMMON, "sliding_window": 24},
    "qwen2": {**_COMMON},
    "qwen3": {**_COMMON, "num_key_value_heads": 1},
    "gemma2": {
        **_COMMON,
        "layer_types": _LAYER_TYPES,
        "sliding_window": 20,
        "query_pre_attn_scalar": 16,
        "attn_logit_softcapping": 5.0,
        "final_logit_softcapping": 30.0,
    },
    "gemma3_text": {**_COMMON, "layer_types": _LAYER_TYPES, "sliding_window": 20, "query_pre_attn_scalar": 16},
    "gpt2": {
        "vocab_size": VOCABULARY,
        "n_embd": 64,
        "n_layer": 3,
        "n_head": 4,
        "n_positions": 512,
        "bos_token_id": None,
        "eos_token_id": EOS,
    },
}


def save_model(folder: Path, family: str = "llama", *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Path:
    """Writes config.json, model.safetensors and tokenizer.json; plain weights would repeat one token for ever."""
    torch.manual_seed(seed)
    config = AutoConfig.for_model(family, **FAMILIES[family])
    model = AutoModelForCausalLM.from_config(config).to(dtype)
    for name, weight in model.named_parameters():
        if weight.dim() == 2 and not any(part in name for part in ("embed", "wte", "wpe", "lm_head")):
            gain = 3.0 if any(part in name for part in ("q_proj", "k_proj", "c_attn")) else 1.5
            weight.data.normal_(0, gain * 64**-0.5)
    model.save_pretrained(folder)
    tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def tokenizer() -> Tokenizer:
    """Byte-level: one token for each byte, an end token, and some pairs of letters."""
    vocabulary = {"</s>": EOS, **{c: i + 1 for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}}
    letters = "etaoinshrdlu"
    merges = [(a, b) for a in letters for b in letters][: VOCABULARY - len(vocabulary)]
    vocabulary |= {a + b: len(vocabulary) + i for i, (a, b) in enumerate(merges)}
    made = Tokenizer(models.BPE(vocabulary, merges))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(["</s>"])
    return made


def oracle(folder: Path) -> Any:
    """The model as transformers runs it."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@torch.inference_mode()
def check_greedy(model: Any, prompt: tuple[int, ...], output: tuple[int, ...], tolerance: float = 1e-4) -> None:
    """Asserts that `output` is what generate() gives for the prompt, up to its first near tie.

    A near tie is a position where the two best logits differ by less than `tolerance`: engines round
    differently.
    """
    ids = torch.tensor([prompt], device=model.device)
    expected = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=len(output),
        do_sample=False,
        output_logits=True,
        return_dict_in_generate=True,
        pad_token_id=EOS,
    )
    tokens = tuple(expected.sequences[0, len(prompt) :].tolist())
    for place, (token, got) in enumerate(zip(tokens, output, strict=False)):
        if token != got:
            scores = expected.logits[place][0]
            gap = float(scores[token] - scores[got])
            assert gap < tolerance, f"token {place} is {got}, generate() says {token} by {gap}"
            return
    assert len(tokens) == len(output), f"{len(output)} tokens, generate() gives {len(tokens)}"


def until_end(output: Run[int]) -> tuple[int, ...]:
    """What generate() gives of an output for which end tokens were ignored."""
    end = output.index(EOS) + 1 if EOS in output else len(output)
    return tuple(output[:end])
