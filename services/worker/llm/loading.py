"""A Hugging Face folder becomes a language model: transformers' modelling code, weights from safetensors only.

Nothing of the folder is ever run: pickled weights and models that bring their own Python code are refused.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from tokenizers import Tokenizer
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.utils.logging import disable_progress_bar

from services.common.errors import FailedPrecondition, InvalidArgument
from services.worker.llm.options import DType, EngineOptions

# Architectures whose attention this engine is tested with.
ARCHITECTURES = (
    "LlamaForCausalLM",
    "MistralForCausalLM",
    "Qwen2ForCausalLM",
    "Qwen3ForCausalLM",
    "Gemma2ForCausalLM",
    "Gemma3ForCausalLM",
    "GPT2LMHeadModel",
)
# Position encodings that depend on the longest sequence of a batch, so a sequence's tokens would depend on its company.
_BATCH_DEPENDENT_ROPE = {"dynamic", "longrope"}
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


@dataclass(frozen=True, slots=True)
class LanguageModel:
    """A model in memory, and what its folder says about generating with it.

    Attributes:
        model: transformers' causal language model, in evaluation mode.
        max_model_len: context in tokens.
        eos_token_ids: its end tokens.
    """

    model: PreTrainedModel
    max_model_len: int
    vocab_size: int
    eos_token_ids: frozenset[int]

    @property
    def config(self) -> PreTrainedConfig:
        """transformers' configuration of the text model."""
        return self.model.config

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.device


def load(folder: Path, options: EngineOptions, *, attention: str, device: str = "") -> LanguageModel:
    """Loads a Hugging Face folder. Blocks.

    Args:
        attention: the name of an attention function that is registered with transformers.
        device: "cpu", "cuda:0"; empty: CUDA where it is.

    Raises:
        FailedPrecondition: the folder is no model that this engine runs; the message says why and what to do.
        InvalidArgument: an option does not fit the model.
    """
    disable_progress_bar()
    config = read_config(folder)
    check_weights(folder)
    target = torch.device(device or ("cuda:0" if torch.cuda.is_available() else "cpu"))
    dtype = choose_dtype(options.dtype, getattr(config, "dtype", None), target)
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            attn_implementation=attention,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise FailedPrecondition(f"{folder}: transformers cannot load the model: {error}") from error
    model, info = loaded
    if missing := sorted(info["missing_keys"]):  # transformers would go on with random numbers
        raise FailedPrecondition(f"{folder}: the weights lack {', '.join(missing[:3])} ({len(missing)} in all)")
    model.eval().requires_grad_(False).to(target)
    return LanguageModel(
        model=model,
        max_model_len=context_length(config, options.max_model_len),
        vocab_size=config.vocab_size,
        eos_token_ids=end_tokens(folder, config),
    )


def read_config(folder: Path) -> PreTrainedConfig:
    """The folder's config.json, if it is of a family that this engine runs.

    Raises:
        FailedPrecondition: it is not, or there is none.
    """
    path = folder / "config.json"
    try:
        raw: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        raise FailedPrecondition(f"{folder} has no config.json; expected a Hugging Face model folder") from None
    except ValueError as error:
        raise FailedPrecondition(f"{path} is not JSON: {error}") from error
    architectures = raw.get("architectures") or []
    if not set(architectures) & set(ARCHITECTURES):
        own_code = " (it brings its own Python code, which is never run here)" if "auto_map" in raw else ""
        raise FailedPrecondition(
            f"{path}: architecture {', '.join(map(str, architectures)) or 'unknown'}{own_code};"
            f" expected one of {', '.join(ARCHITECTURES)}"
        )
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise FailedPrecondition(f"{path}: transformers cannot read it: {error}") from error
    rope = json.dumps(getattr(config, "rope_parameters", None) or {})
    if kind := next((kind for kind in _BATCH_DEPENDENT_ROPE if f'"{kind}"' in rope), None):
        raise FailedPrecondition(
            f"{path}: rope type '{kind}' depends on the longest sequence of a batch; expected default, linear, yarn or"
            " llama3"
        )
    return config


def check_weights(folder: Path) -> None:
    """Refuses a folder without safetensors, and says so if it has pickles instead.

    Raises:
        FailedPrecondition: there is nothing that is safe to load.
    """
    if any(folder.glob("*.safetensors")):
        return
    pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
    if pickles:
        raise FailedPrecondition(
            f"{folder}: weights are pickled ({', '.join(pickles[:3])}), and loading a pickle can run any code; save the"
            " model with save_pretrained(), which writes model.safetensors"
        )
    raise FailedPrecondition(f"{folder} has no weights; expected model.safetensors, or its parts with their index")


def context_length(config: PreTrainedConfig, wanted: int | None) -> int:
    """The context: the model's own, or less if asked for.

    Raises:
        InvalidArgument: more was asked for than the model has positions.
    """
    most = int(config.max_position_embeddings)
    if wanted is not None and wanted > most:
        raise InvalidArgument(f"max_model_len is {wanted}, but the model has {most} positions; ask for at most {most}")
    return wanted or most


def end_tokens(folder: Path, config: PreTrainedConfig) -> frozenset[int]:
    """End tokens: generation_config.json's, else config.json's."""
    found = config.eos_token_id
    if (folder / "generation_config.json").exists():
        found = GenerationConfig.from_pretrained(folder, local_files_only=True).eos_token_id or found
    if found is None:
        return frozenset()
    return frozenset(found if isinstance(found, list) else [found])


def choose_dtype(wanted: DType, saved: torch.dtype | str | None, device: torch.device) -> torch.dtype:
    """The type of weights and cache; see `EngineOptions.dtype`."""
    if wanted != "auto":
        return _DTYPES[wanted]
    checkpoint = saved if isinstance(saved, torch.dtype) else _DTYPES.get(str(saved), torch.float32)
    if device.type != "cpu" or checkpoint == torch.float32:
        return checkpoint
    return torch.bfloat16 if cpu_has_bfloat16() else torch.float32


def cpu_has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 faster than float32."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def load_tokenizer(folder: Path) -> Tokenizer:
    """The folder's tokenizer, without its chat template. Older files than tokenizer.json are converted.

    Raises:
        FailedPrecondition: there is none, or it does not load.
    """
    path = folder / "tokenizer.json"
    try:
        if path.exists():
            return Tokenizer.from_file(str(path))
        converted: Any = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        tokenizer: Tokenizer = converted.backend_tokenizer
    except Exception as error:  # the tokenizers package raises bare Exception
        raise FailedPrecondition(
            f"{folder}: the tokenizer does not load: {error}; expected tokenizer.json, as"
            " tokenizer.save_pretrained(folder) writes it"
        ) from error
    return tokenizer


_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    **{str(kind): kind for kind in (torch.float32, torch.bfloat16, torch.float16)},
}
