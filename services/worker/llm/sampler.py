"""Sampling of one step, all rows together: each row's parameters lie on the device while its sequence has the row."""

from collections.abc import Sequence as Run
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from services.worker.llm.choosing import UNDECIDED, Filters, choose
from services.worker.llm.draws import uniforms
from services.worker.llm.penalties import Penalties
from services.worker.llm.request import Logprobs, SamplingParams
from services.worker.llm.sequence import Sequence
from services.worker.llm.transfer import send

_FLOATS = ("temperature", "top_p", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty")


@dataclass(frozen=True, slots=True)
class Sampled:
    """What one step drew.

    Attributes:
        tokens: one for each sequence.
        logprobs: for those that asked.
    """

    tokens: list[int]
    logprobs: list[Logprobs | None]


class Sampler:
    """Draws tokens for the rows of a runner.

    The host waits for the device once a step, for the tokens; once more if a row's filters let more pass than are
    sorted at first, or if logprobs were asked for.

    Args:
        rows: most sequences at a time.
        vocabulary: number of token ids.
    """

    def __init__(self, rows: int, vocabulary: int, device: torch.device) -> None:
        self._vocabulary, self._device = vocabulary, device
        self._parameters = torch.zeros(len(_FLOATS), rows, dtype=torch.float32, device=device)
        self._top_k = torch.zeros(rows, dtype=torch.int64, device=device)
        self._penalties = Penalties(rows, vocabulary, device)

    def admit(self, sequence: Sequence) -> None:
        """A sequence took a row."""
        params, row = sequence.request.params, sequence.row
        if params.greedy and not _penalised(params):
            return
        self._parameters[:, row] = self._sent([getattr(params, name) for name in _FLOATS], np.float32)
        self._top_k[row] = params.top_k if params.top_k > 0 else self._vocabulary
        if _penalised(params):
            self._penalties.admit(sequence)

    def sample(self, logits: Tensor, sequences: Run[Sequence], allowed: Tensor | None = None) -> Sampled:
        """The next token of each sequence.

        Args:
            logits: [sequences, vocabulary], of the model.
            allowed: bool, same shape: what a grammar lets come; None: everything.
        """
        logits = logits.float()
        raw = logits
        logits = self._adjusted(logits, sequences)
        if allowed is not None:
            logits = logits.masked_fill(~allowed, -torch.inf)
        tokens = self._tokens(logits, sequences)
        counted = [i for i, s in enumerate(sequences) if _penalised(s.request.params)]
        if counted:
            self._penalties.add(self._rows(counted, sequences), self._sent([tokens[i] for i in counted]))
        return Sampled(tokens, _logprobs(raw, tokens, sequences))

    def _tokens(self, logits: Tensor, sequences: Run[Sequence]) -> list[int]:
        """The best token of each greedy row, a drawn one of each other."""
        drawn = [i for i, s in enumerate(sequences) if not s.request.params.greedy]
        if not drawn:
            best: list[int] = logits.argmax(-1).tolist()
            return best
        if len(drawn) == len(sequences):
            found = self._draw(logits, drawn, sequences)
        else:
            where = self._sent(drawn)
            found = logits.argmax(-1).index_copy(0, where, self._draw(logits[where], drawn, sequences))
        tokens: list[int] = found.tolist()
        if left := [i for i, token in enumerate(tokens) if token == UNDECIDED]:
            rest = self._draw(logits[self._sent(left)], left, sequences, whole=True).tolist()
            for i, token in zip(left, rest, strict=True):
                tokens[i] = token
        return tokens

    def _sent(self, numbers: Run[float], dtype: type = np.int64) -> Tensor:
        return send(np.array(numbers, dtype), self._device)

    def _rows(self, places: Run[int], sequences: Run[Sequence]) -> Tensor:
        return self._sent([sequences[i].row for i in places])

    def _draw(self, logits: Tensor, places: Run[int], sequences: Run[Sequence], *, whole: bool = False) -> Tensor:
        some = [sequences[i] for i in places]
        uniform = uniforms([s.request.seed for s in some], [s.output_length for s in some])
        rows = self._rows(places, sequences)
        temperature, top_p, min_p, *_ = self._parameters[:, rows]
        filtered = any(p.top_k > 0 or p.top_p < 1 or p.min_p > 0 for p in (s.request.params for s in some))
        filters = Filters(temperature, self._top_k[rows].clamp(max=self._vocabulary), top_p, min_p, filtered)
        return choose(logits, filters, send(uniform, self._device), whole=whole)

    def _adjusted(self, logits: Tensor, sequences: Run[Sequence]) -> Tensor:
        """Bias, end tokens that come too soon, penalties; the logits that came in stay as they are."""
        places: list[int] = []
        tokens: list[int] = []
        values: list[float] = []
        for i, sequence in enumerate(sequences):
            params = sequence.request.params
            # A grammar that is at its end allows nothing but an end token, so it goes before min_tokens.
            soon = sequence.output_length < params.min_tokens and params.structured is None
            early = sequence.end_ids if soon else ()
            if params.logit_bias or early:
                some = {**params.logit_bias, **dict.fromkeys(early, -torch.inf)}
                places.extend([i] * len(some))
                tokens.extend(some.keys())
                values.extend(some.values())
        if places:
            where = (self._sent(places), self._sent(tokens))
            logits = logits.index_put(where, self._sent(values, np.float32), accumulate=True)
        penalised = [i for i, s in enumerate(sequences) if _penalised(s.request.params)]
        if penalised:
            rows = self._rows(penalised, sequences)
            places_of = self._sent(penalised)
            changed = self._penalties.apply(logits[places_of], rows, *self._parameters[3:, rows])
            logits = logits.index_put((places_of,), changed)
        return logits


def _penalised(params: SamplingParams) -> bool:
    return params.repetition_penalty != 1 or params.presence_penalty != 0 or params.frequency_penalty != 0


def _logprobs(logits: Tensor, tokens: list[int], sequences: Run[Sequence]) -> list[Logprobs | None]:
    """Of the model itself, before any parameter, as vLLM gives them."""
    found: list[Logprobs | None] = [None] * len(sequences)
    asked = [i for i, s in enumerate(sequences) if s.request.params.logprobs is not None]
    if not asked:
        return found
    scores = torch.log_softmax(logits[asked], -1)
    chosen = scores.gather(-1, torch.tensor([[tokens[i]] for i in asked], device=logits.device))
    ranks = (scores > chosen).sum(-1) + 1
    most = max(sequences[i].request.params.logprobs or 0 for i in asked)
    best, ids = scores.topk(min(most, scores.shape[-1]), dim=-1)
    each = zip(asked, chosen.flatten().tolist(), ranks.tolist(), ids.tolist(), best.tolist(), strict=True)
    for i, score, rank, top_ids, top in each:
        count = sequences[i].request.params.logprobs or 0
        found[i] = Logprobs(score, rank, tuple(zip(top_ids[:count], top[:count], strict=True)))
    return found
