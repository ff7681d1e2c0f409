"""Vectors of texts: a Hugging Face encoder or language model, its last hidden states, and what is made of them.

Nothing of the folder is ever run; weights come from safetensors only.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoModel
from transformers.utils.logging import disable_progress_bar

from headrace.v1.model_pb2 import EmbeddingSpec
from services.common.errors import FailedPrecondition, InvalidArgument
from services.common.tensors import Array
from services.worker.llm.loading import check_weights, choose_dtype, load_tokenizer
from services.worker.llm.options import DType

# Most tokens, padding included, that go through the model at a time: what bounds its memory.
MOST_TOKENS = 16_384
_DTYPES: dict[str, DType] = {
    "": "auto",
    "auto": "auto",
    "float32": "float32",
    "bfloat16": "bfloat16",
    "float16": "float16",
}


class EmbeddingModel:
    """Implements LoadedModel: `text_input` or `token_ids` in, `embedding` and the number of `tokens` out.

    Raises:
        FailedPrecondition: the folder is no model that transformers loads.
    """

    def __init__(self, folder: Path, spec: EmbeddingSpec, threads: int) -> None:
        torch.set_num_threads(threads)
        self._spec = spec
        self._device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
        self._tokenizer = load_tokenizer(folder)
        # Texts are never cut in silence, and padded here, each with its like.
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._model = _load(folder, _DTYPES[spec.dtype], self._device)
        self._vocabulary = int(self._model.config.get_text_config().vocab_size)
        self._embed([[0]])  # what is set up lazily is set up before the first caller

    @property
    def device(self) -> str:
        """Where the weights are."""
        return str(self._device)

    def run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        """A vector for each row.

        Raises:
            InvalidArgument: a text has no tokens or too many, or an id is none of the model's.
        """
        rows = self._rows(inputs)
        lengths = [len(row) for row in rows]
        for place, length in enumerate(lengths):
            if not 1 <= length <= self._spec.max_length:
                raise InvalidArgument(
                    f"text {place} has {length} tokens; the model takes 1 to {self._spec.max_length}, cut it"
                )
        vectors = np.empty((len(rows), self._spec.dimensions), np.float32)
        for places in groups(lengths, MOST_TOKENS):
            vectors[places] = self._embed([rows[place] for place in places])
        return {"embedding": vectors, "tokens": np.array(lengths, np.int32)}

    def _rows(self, inputs: dict[str, Array]) -> list[list[int]]:
        """Token ids of each row."""
        if len(inputs) != 1:
            raise InvalidArgument("expected either text_input or token_ids")
        if (texts := inputs.get("text_input")) is not None:
            encoded = self._tokenizer.encode_batch([text.decode() for text in texts.tolist()])
            return [each.ids for each in encoded]
        ids = inputs["token_ids"]
        if ids.size and int(ids.max()) >= self._vocabulary:
            raise InvalidArgument(f"there is no token {ids.max()}; the model's ids are 0 to {self._vocabulary - 1}")
        # -1 fills up rows that are shorter than others.
        return [[token for token in row if token >= 0] for row in ids.tolist()]

    @torch.inference_mode()
    def _embed(self, rows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """[rows, dimensions]."""
        lengths = torch.tensor([len(row) for row in rows], device=self._device)
        ids = torch.zeros(len(rows), int(lengths.max()), dtype=torch.long)
        for place, row in enumerate(rows):
            ids[place, : len(row)] = torch.tensor(row)
        mask = torch.arange(ids.shape[1], device=self._device) < lengths[:, None]
        hidden = self._model(input_ids=ids.to(self._device), attention_mask=mask.long()).last_hidden_state
        vectors = pool(hidden.float(), mask, lengths, self._spec.pooling)
        if self._spec.normalize:
            vectors = torch.nn.functional.normalize(vectors, dim=-1)
        result: NDArray[np.float32] = vectors.cpu().numpy()
        return result


def pool(hidden: Tensor, mask: Tensor, lengths: Tensor, pooling: str) -> Tensor:
    """[rows, tokens, dimensions] → [rows, dimensions]; padding stands behind each row's tokens."""
    if pooling == "cls":
        return hidden[:, 0]
    if pooling == "last":
        return hidden[torch.arange(len(hidden), device=hidden.device), lengths - 1]
    return (hidden * mask[:, :, None]).sum(1) / lengths[:, None]


def groups(lengths: Sequence[int], most: int) -> Iterator[list[int]]:
    """Places of rows that go through the model together: alike in length, and no more than `most` tokens if padded."""
    group: list[int] = []
    for place in sorted(range(len(lengths)), key=lambda place: lengths[place]):
        if group and lengths[place] * (len(group) + 1) > most:
            yield group
            group = []
        group.append(place)
    if group:
        yield group


def _load(folder: Path, wanted: DType, device: torch.device) -> Any:
    disable_progress_bar()
    check_weights(folder)
    try:
        model, info = AutoModel.from_pretrained(
            folder,
            dtype="auto",
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise FailedPrecondition(f"transformers cannot load the model: {error}") from error
    # A pooler that was not saved is not used either; for anything else transformers would go on with random numbers.
    if missing := sorted(name for name in info["missing_keys"] if not name.startswith("pooler.")):
        raise FailedPrecondition(f"the weights lack {', '.join(missing[:3])} ({len(missing)} in all)")
    return model.eval().requires_grad_(False).to(device, choose_dtype(wanted, model.dtype, device))
