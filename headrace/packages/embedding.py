"""Reading a model that makes vectors of texts: a Hugging Face folder, such as sentence-transformers saves."""

import json
from pathlib import Path
from typing import Any

from headrace.packages.error import PackageError
from headrace.packages.language_model import CONFIG, beside, context_length, read_config, read_json
from headrace.packages.manifest import DEFAULT_MAX_BATCH_SIZE
from headrace.packages.manifest_file import ManifestFile
from headrace.packages.safetensors_file import checked_weights
from headrace.v1.model_pb2 import EmbeddingSpec, ModelSpec, TensorSpec

# sentence-transformers' list of what a text goes through.
MODULES = "modules.json"
_MODULES = {"Transformer", "Pooling", "Normalize"}
_POOLINGS = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_lasttoken": "last",
    "pooling_mode_cls_token": "cls",
}
# These count positions from the padding token's id on.
_OFFSET_POSITIONS = {"roberta", "xlm-roberta", "camembert", "mpnet"}


def is_sentence_encoder(folder: Path) -> bool:
    """Whether sentence-transformers saved it."""
    return (folder / MODULES).is_file()


def read_embedding_model(folder: Path, files: list[Path], said: ManifestFile) -> tuple[ModelSpec, list[Path]]:
    """The spec that the files imply, with the manifest over it, and the files that are wanted.

    Pooling is sentence-transformers' where it saved the folder; else "last" for models that were made to generate,
    whose last token alone has seen the whole text, and "mean" for others.

    Raises:
        PackageError: the folder is no whole model, or needs more than pooling; it names file and key.
    """
    config = read_config(folder)
    if not (folder / "tokenizer.json").is_file():
        raise PackageError(f"{folder}: has no tokenizer.json; save a fast tokenizer with tokenizer.save_pretrained")
    dimensions = config.get("hidden_size", config.get("n_embd"))
    if not isinstance(dimensions, int) or dimensions < 1:
        raise PackageError(f"{folder / CONFIG}, hidden_size: expected a number over 0, got {dimensions!r}")
    spec = ModelSpec(
        runtime="embedding",
        entry=CONFIG,
        inputs=[
            TensorSpec(name="text_input", datatype="BYTES", shape=[-1], optional=True),
            TensorSpec(name="token_ids", datatype="INT64", shape=[-1, -1], optional=True),
        ],
        outputs=[
            TensorSpec(name="embedding", datatype="FP32", shape=[-1, dimensions]),
            TensorSpec(name="tokens", datatype="INT32", shape=[-1]),
        ],
        embedding=EmbeddingSpec(
            pooling=_pooling(folder, config),
            normalize=True,
            max_length=_longest(folder, config),
            dimensions=dimensions,
        ),
    )
    spec.batching.max_batch_size = DEFAULT_MAX_BATCH_SIZE
    said.apply(spec)
    # Token ids of different texts share a batch; what is filled up is no token.
    spec.batching.padding, spec.batching.padding_value = True, -1
    spec.warmup.disabled = True  # none of the inputs is required: the runtime warms itself up
    return spec, beside(folder, files) + checked_weights(folder)


def _pooling(folder: Path, config: dict[str, Any]) -> str:
    if not is_sentence_encoder(folder):
        generates = any("CausalLM" in name or "LMHead" in name for name in config.get("architectures") or [])
        return "last" if generates else "mean"
    path = folder / MODULES
    try:
        modules = [str(module["type"]).rpartition(".")[2] for module in json.loads(path.read_text(encoding="utf-8"))]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise PackageError(f"{path}: not a list of modules, each with its type: {error!r}") from error
    if further := set(modules) - _MODULES:
        raise PackageError(f"{path}: the model goes through {', '.join(sorted(further))}; only pooling is offered")
    settings_path = folder / "1_Pooling" / CONFIG
    settings = read_json(settings_path)
    wanted = {name for name, value in settings.items() if name.startswith("pooling_mode_") and value is True}
    if len(wanted) != 1 or not wanted <= _POOLINGS.keys():
        raise PackageError(f"{settings_path}: expected one of {', '.join(_POOLINGS)}, got {', '.join(sorted(wanted))}")
    return _POOLINGS[wanted.pop()]


def _longest(folder: Path, config: dict[str, Any]) -> int:
    """What the positions hold, or less where sentence-transformers says so."""
    length = context_length(config)
    if config["model_type"] in _OFFSET_POSITIONS:
        length -= int(config.get("pad_token_id", 1)) + 1
    settings = folder / "sentence_bert_config.json"
    said = read_json(settings).get("max_seq_length") if settings.is_file() else None
    return min(length, said) if isinstance(said, int) else length
