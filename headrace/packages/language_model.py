"""Reading a language model: a Hugging Face folder, or a model.yaml that names an OpenAI-compatible server."""

import json
from pathlib import Path
from typing import Any

from headrace.packages.error import PackageError
from headrace.packages.manifest_file import ManifestFile
from headrace.packages.safetensors_file import checked_weights
from headrace.v1.model_pb2 import ModelSpec, RemoteServer, TensorSpec, TextSpec

CONFIG = "config.json"
# What an engine may read beside the weights; anything else (readme, code, other formats, folders) is left out.
_NEEDED = {".json", ".txt", ".model", ".jinja", ".tiktoken"}
_TOKENIZERS = (("tokenizer.json",), ("vocab.json", "merges.txt"), ("tokenizer.model",))
# By whatever name the architecture has for it.
_LENGTHS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")


def is_language_model(folder: Path) -> bool:
    """Whether it looks like a Hugging Face model's folder."""
    return (folder / CONFIG).is_file()


def read_language_model(folder: Path, files: list[Path], runtime: str) -> tuple[ModelSpec, list[Path]]:
    """The spec that the files imply, and the files that are wanted.

    Raises:
        PackageError: no config.json, no whole set of safetensors, or no tokenizer; it names file and key.
    """
    text = read_config(folder)
    weights = checked_weights(folder)
    needed = beside(folder, files) + weights
    _check_tokenizer(folder, runtime)
    length = context_length(text)
    vocabulary = text.get("vocab_size")
    if not isinstance(vocabulary, int) or vocabulary < 1:
        raise PackageError(f"{folder / CONFIG}, vocab_size: expected a number over 0, got {vocabulary!r}")
    return text_spec(TextSpec(max_model_len=length, vocab_size=vocabulary, chat=_has_template(folder)), runtime), needed


def read_config(folder: Path) -> dict[str, Any]:
    """What config.json says of the text model. Raises PackageError where it is no model without code of its own."""
    config = read_json(folder / CONFIG)
    if "auto_map" in config:
        raise PackageError(f"{folder / CONFIG}, auto_map: the model needs code of its own, which is never run")
    if not isinstance(config.get("model_type"), str):
        raise PackageError(f"{folder / CONFIG}, model_type: expected the name of the architecture, such as llama")
    # Models that read images too keep their language model's figures one level deeper.
    text: dict[str, Any] = config.get("text_config", config)
    return text


def beside(folder: Path, files: list[Path]) -> list[Path]:
    """What an engine may read beside the weights."""
    return [file for file in files if file.parent == folder and file.suffix.lower() in _NEEDED]


def context_length(config: dict[str, Any]) -> int:
    """The model's positions; 0: not said."""
    return next((config[name] for name in _LENGTHS if isinstance(config.get(name), int)), 0)


def remote_spec(said: ManifestFile) -> ModelSpec:
    """The spec of `runtime: openai`. Raises PackageError."""
    server = said.manifest.openai
    if server is None:
        raise said.refuse("missing; expected base_url and model of the server that runs the model", "openai")
    remote = RemoteServer(base_url=server.base_url, model=server.model, api_key_env=server.api_key_env)
    spec = text_spec(TextSpec(chat=True, remote=remote), "openai")
    spec.entry = said.path.name
    said.apply(spec)
    return spec


def text_spec(text: TextSpec, runtime: str) -> ModelSpec:
    """A language model as Triton's clients see it: the inputs and outputs of its LLM backends."""
    optional = {
        "stream": "BOOL",
        "exclude_input_in_output": "BOOL",
        "sampling_parameters": "BYTES",
        "max_tokens": "INT32",
        "temperature": "FP32",
        "top_k": "INT32",
        "top_p": "FP32",
        "seed": "INT64",
        "stop": "BYTES",
    }
    return ModelSpec(
        runtime=runtime,
        entry=CONFIG,
        inputs=[
            TensorSpec(name="text_input", datatype="BYTES", shape=[1]),
            *(TensorSpec(name=name, datatype=kind, shape=[1], optional=True) for name, kind in optional.items()),
        ],
        outputs=[TensorSpec(name="text_output", datatype="BYTES", shape=[-1])],
        text=text,
    )


def _check_tokenizer(folder: Path, runtime: str) -> None:
    if runtime == "llm" and not (folder / "tokenizer.json").is_file():
        raise PackageError(f"{folder}: has no tokenizer.json; save a fast tokenizer with tokenizer.save_pretrained")
    if not any(all((folder / name).is_file() for name in names) for names in _TOKENIZERS):
        choices = " or ".join(" with ".join(names) for names in _TOKENIZERS)
        raise PackageError(f"{folder}: has no tokenizer; expected {choices}")


def _has_template(folder: Path) -> bool:
    if any((folder / name).is_file() for name in ("chat_template.jinja", "chat_template.json")):
        return True
    settings = folder / "tokenizer_config.json"
    return settings.is_file() and bool(read_json(settings).get("chat_template"))


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises PackageError."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise PackageError(f"{path}: not there; expected the folder of a Hugging Face model") from error
    except (ValueError, RecursionError) as error:
        raise PackageError(f"{path}: not JSON: {error}") from error
    if not isinstance(value, dict):
        raise PackageError(f"{path}: expected a JSON object, got {type(value).__name__}")
    return value
