"""Texts to token ids, with the tokenizers library: no model, and nothing of the folder is run."""

from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from headrace.v1.model_pb2 import TokenizerSpec
from services.common.errors import FailedPrecondition, InvalidArgument
from services.common.tensors import Array

# Where tokenizer.json does not say what it pads with: the names that are in use.
_PADS = ("[PAD]", "<pad>", "<|pad|>", "<|endoftext|>", "</s>")


class TokenizerModel:
    """Implements LoadedModel: `text_input` in; `input_ids`, `attention_mask` and, if wanted, `token_type_ids` out.

    Rows are padded to the longest of their batch, as tokenizer.json says it, else on the right with 0 in the mask.

    Raises:
        FailedPrecondition: the library does not load the file.
    """

    device = "cpu"

    def __init__(self, path: Path, spec: TokenizerSpec) -> None:
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exception
            raise FailedPrecondition(f"the tokenizers library cannot load '{path.name}': {error}") from error
        self._spec = spec
        if spec.truncation:
            self._tokenizer.enable_truncation(spec.max_length)
        else:  # whatever the file says: texts are never cut in silence
            self._tokenizer.no_truncation()
        self._pad()

    def run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        """A row of ids for each text.

        Raises:
            InvalidArgument: a text is longer than max_length, and is not to be cut.
        """
        texts = [text.decode() for text in inputs["text_input"].tolist()]
        encoded = self._tokenizer.encode_batch(texts)
        masks = np.array([each.attention_mask for each in encoded], np.int64)
        if self._spec.max_length and not self._spec.truncation:
            self._check(masks.sum(1).tolist())
        outputs: dict[str, Array] = {
            "input_ids": np.array([each.ids for each in encoded], np.int64),
            "attention_mask": masks,
        }
        if self._spec.token_type_ids:
            outputs["token_type_ids"] = np.array([each.type_ids for each in encoded], np.int64)
        return outputs

    def _check(self, lengths: list[int]) -> None:
        for place, length in enumerate(lengths):
            if length > self._spec.max_length:
                raise InvalidArgument(
                    f"text {place} has {length} tokens; expected {self._spec.max_length} at most: cut it, or set"
                    " tokenizer.truncation in the package"
                )

    def _pad(self) -> None:
        said = self._tokenizer.padding
        if said is None:
            name = next((name for name in _PADS if self._tokenizer.token_to_id(name) is not None), "[PAD]")
            said = {"pad_id": self._tokenizer.token_to_id(name) or 0, "pad_token": name}
        self._tokenizer.enable_padding(**{**said, "length": None})
