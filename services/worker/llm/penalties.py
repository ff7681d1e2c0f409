"""Repetition, presence and frequency penalties: what each row's tokens were, kept on the device."""

import numpy as np
import torch
from torch import Tensor

from services.worker.llm.sequence import Sequence
from services.worker.llm.transfer import send


class Penalties:
    """Counts for the rows that are penalised; the memory, five bytes for each row and token, is taken when one is."""

    def __init__(self, rows: int, vocabulary: int, device: torch.device) -> None:
        self._shape, self._device = (rows, vocabulary), device
        self._in_prompt = torch.empty(0)
        self._counts = torch.empty(0)

    def admit(self, sequence: Sequence) -> None:
        """Counts what a penalised sequence has so far, into its row."""
        if not self._counts.numel():
            self._in_prompt = torch.zeros(self._shape, dtype=torch.bool, device=self._device)
            self._counts = torch.zeros(self._shape, dtype=torch.int32, device=self._device)
        vocabulary = self._shape[1]
        prompt, output = (np.array(ids, np.int64) for ids in (sequence.request.prompt, sequence.output_tokens))
        self._in_prompt[sequence.row] = send(np.bincount(prompt, minlength=vocabulary) > 0, self._device)
        counts = np.bincount(output, minlength=vocabulary).astype(np.int32)
        self._counts[sequence.row] = send(counts, self._device)

    def add(self, rows: Tensor, tokens: Tensor) -> None:
        """One more token of each of these penalised rows, int64 [some]."""
        self._counts[rows, tokens] += 1

    def apply(self, logits: Tensor, rows: Tensor, repetition: Tensor, presence: Tensor, frequency: Tensor) -> Tensor:
        """The logits of penalised rows, float32 [some, vocabulary]; the penalties are float32 [some]."""
        counts = self._counts[rows]
        seen = counts > 0
        repeated = torch.where(logits > 0, logits / repetition[:, None], logits * repetition[:, None])
        logits = torch.where(seen | self._in_prompt[rows], repeated, logits)
        return logits - frequency[:, None] * counts - presence[:, None] * seen
