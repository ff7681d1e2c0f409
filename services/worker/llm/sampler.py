"""Sampling of one step, all rows together: each row's parameters lie on the device while its sequence has the row."""

from collections.abc import Sequence as Run
from dataclasses import dataclass

import torch
from torch import Tensor

from services.worker.llm.choosing import Filters, choose
from services.worker.llm.draws import uniforms
from services.worker.llm.penalties import Penalties
from services.worker.llm.request import Logprobs, SamplingParams
from services.worker.llm.sequence import Sequence

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
        self._parameters[:, row] = torch.tensor([getattr(params, name) for name in _FLOATS])
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
        tokens = logits.argmax(-1)
        drawn = [i for i, s in enumerate(sequences) if not s.request.params.greedy]
        if drawn:
            tokens[drawn] = self._draw(logits[drawn] if len(drawn) < len(sequences) else logits, drawn, sequences)
        counted = [i for i, s in enumerate(sequences) if _penalised(s.request.params)]
        if counted:
            self._penalties.add(self._rows(counted, sequences), tokens[counted])
        return Sampled(tokens.tolist(), _logprobs(raw, tokens, sequences))

    def _rows(self, places: Run[int], sequences: Run[Sequence]) -> Tensor:
        return torch.tensor([sequences[i].row for i in places], device=self._device)

    def _draw(self, logits: Tensor, places: Run[int], sequences: Run[Sequence]) -> Tensor:
        some = [sequences[i] for i in places]
        uniform = uniforms([s.request.seed for s in some], [s.output_length for s in some])
        rows = self._rows(places, sequences)
        temperature, top_p, min_p, *_ = self._parameters[:, rows]
        filtered = any(p.top_k > 0 or p.top_p < 1 or p.min_p > 0 for p in (s.request.params for s in some))
        filters = Filters(temperature, self._top_k[rows].clamp(max=self._vocabulary), top_p, min_p, filtered)
        return choose(logits, filters, torch.from_numpy(uniform).to(self._device))

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
            where = (torch.tensor(places, device=self._device), torch.tensor(tokens, device=self._device))
            logits = logits.index_put(where, torch.tensor(values, device=self._device), accumulate=True)
        penalised = [i for i, s in enumerate(sequences) if _penalised(s.request.params)]
        if penalised:
            rows = self._rows(penalised, sequences)
            changed = self._penalties.apply(logits[penalised], rows, *self._parameters[3:, rows])
            logits = logits.index_put((torch.tensor(penalised, device=self._device),), changed)
        return logits


def _penalised(params: SamplingParams) -> bool:
    return params.repetition_penalty != 1 or params.presence_penalty != 0 or params.frequency_penalty != 0


def _logprobs(logits: Tensor, tokens: Tensor, sequences: Run[Sequence]) -> list[Logprobs | None]:
    """Of the model itself, before any parameter, as vLLM gives them."""
    found: list[Logprobs | None] = [None] * len(sequences)
    asked = [i for i, s in enumerate(sequences) if s.request.params.logprobs is not None]
    if not asked:
        return found
    scores = torch.log_softmax(logits[asked], -1)
    chosen = scores.gather(-1, tokens[asked][:, None])
    ranks = (scores > chosen).sum(-1) + 1
    most = max(sequences[i].request.params.logprobs or 0 for i in asked)
    best, ids = scores.topk(min(most, scores.shape[-1]), dim=-1)
    each = zip(asked, chosen.flatten().tolist(), ranks.tolist(), ids.tolist(), best.tolist(), strict=True)
    for i, score, rank, top_ids, top in each:
        count = sequences[i].request.params.logprobs or 0
        found[i] = Logprobs(score, rank, tuple(zip(top_ids[:count], top[:count], strict=True)))
    return found
