"""`runtime: tokenizer`: a Hugging Face tokenizer.json, which makes token ids of texts."""

from pathlib import Path

from tokenizers import Tokenizer

from headrace.packages.error import PackageError
from headrace.packages.manifest import DEFAULT_MAX_BATCH_SIZE
from headrace.packages.manifest_file import ManifestFile
from headrace.v1.model_pb2 import ModelSpec, TensorSpec, TokenizerSpec

TOKENIZER = "tokenizer.json"


def tokenizer_spec(folder: Path, said: ManifestFile) -> ModelSpec:
    """text_input BYTES [N] → input_ids and attention_mask INT64 [N, longest], named as transformers names them.

    Raises:
        PackageError: there is no tokenizer.json, or the tokenizers library does not load it.
    """
    path = folder / TOKENIZER
    if not path.is_file():
        raise PackageError(f"{path}: not there; save a fast tokenizer with tokenizer.save_pretrained")
    try:
        Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise PackageError(f"{path}: the tokenizers library cannot load it: {error}") from error
    asked = said.manifest.tokenizer
    if asked.truncation and not asked.max_length:
        raise said.refuse("texts are cut to max_length; set tokenizer.max_length, too", "tokenizer", "truncation")
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if asked.token_type_ids else [])]
    spec = ModelSpec(
        runtime="tokenizer",
        entry=TOKENIZER,
        inputs=[TensorSpec(name="text_input", datatype="BYTES", shape=[-1])],
        outputs=[TensorSpec(name=name, datatype="INT64", shape=[-1, -1]) for name in names],
        tokenizer=TokenizerSpec(
            max_length=asked.max_length or 0, truncation=asked.truncation, token_type_ids=asked.token_type_ids
        ),
    )
    spec.batching.max_batch_size = DEFAULT_MAX_BATCH_SIZE
    said.apply(spec)
    return spec
