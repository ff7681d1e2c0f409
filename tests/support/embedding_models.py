"""Small random encoders as Hugging Face folders, and what transformers makes of a text, alone, as the oracle."""

import json
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer, processors
from transformers import AutoModel, BertConfig, BertModel

from tests.support.llm_models import VOCABULARY, save_model, tokenizer

LONGEST = 64


def save_bert(folder: Path) -> Path:
    """As sentence-transformers saves one: it says itself how its tokens are pooled."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=96,
        max_position_embeddings=LONGEST,
        pad_token_id=None,
    )
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    # Encoders' tokenizers put special tokens around, and often cut and pad.
    made = tokenizer()
    made.post_processor = processors.TemplateProcessing(single="</s> $A </s>", special_tokens=[("</s>", 0)])
    made.enable_truncation(8)
    made.enable_padding(length=16)
    made.save(str(folder / "tokenizer.json"))
    modules = [{"type": f"sentence_transformers.models.{name}"} for name in ("Transformer", "Pooling", "Normalize")]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": 48, "pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return folder


def save_llama(folder: Path, manifest: str = "runtime: embedding\n") -> Path:
    """A model that was made to generate."""
    save_model(folder)
    (folder / "model.yaml").write_text(manifest)
    return folder


def token_ids(folder: Path, text: str) -> list[int]:
    """Of the whole text, special tokens included."""
    loaded = Tokenizer.from_file(str(folder / "tokenizer.json"))
    loaded.no_truncation()
    loaded.no_padding()
    ids: list[int] = loaded.encode(text).ids
    return ids


@torch.inference_mode()
def expected(folder: Path, text: str, pooling: str) -> NDArray[np.float32]:
    """One text's vector, of length 1: nothing is padded."""
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    hidden = model(input_ids=torch.tensor([token_ids(folder, text)])).last_hidden_state[0]
    vector = {"mean": hidden.mean(0), "last": hidden[-1], "cls": hidden[0]}[pooling]
    result: NDArray[np.float32] = (vector / vector.norm()).numpy()
    return result
