"""One request as vLLM is asked for it, and its outputs as ours.

vLLM gives token ids. Their text and its stop strings are made here, as for the native engine, so that a generation
which another worker began goes on in the middle of a word.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from services.common.errors import FailedPrecondition, ModelFailed
from services.common.sampling import SamplingParams
from services.worker.llm.detokenise import Decoder
from services.worker.llm.output import OutputText
from services.worker.llm.port import GenerationRequest, TokenOutput
from services.worker.llm.request import FinishReason, Logprobs

_SAME = (
    *("temperature", "top_p", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty", "ignore_eos"),
    *("logprobs", "skip_special_tokens"),
)


def sampling_arguments(request: GenerationRequest) -> dict[str, Any]:
    """vLLM's SamplingParams for what is still to come.

    Raises:
        FailedPrecondition: a grammar cannot be entered in its middle.
    """
    params, done = request.params, len(request.resume)
    arguments: dict[str, Any] = {name: getattr(params, name) for name in _SAME}
    arguments |= {
        "top_k": max(0, params.top_k),
        "seed": request.seed,
        "stop_token_ids": list(params.stop_token_ids),
        "max_tokens": None if params.max_tokens is None else params.max_tokens - done,
        "min_tokens": max(0, params.min_tokens - done),
    }
    if params.logit_bias:
        arguments["logit_bias"] = dict(params.logit_bias)
    if params.structured is not None:
        if done:
            raise FailedPrecondition(
                "the worker died, and vLLM cannot go on in the middle of structured output; send it again"
            )
        arguments["structured_outputs"] = params.structured.named()
    return arguments


class Story:
    """One sequence: vLLM's outputs become ours."""

    def __init__(self, request: GenerationRequest, decoder: Decoder) -> None:
        self._request = request
        self._text = OutputText(decoder, request)
        self._count = len(request.resume)
        self._cached = 0
        self._over: FinishReason | None = None
        if self._text.stop is not None:
            self._over = "stop"
        elif request.params.max_tokens is not None and self._count >= request.params.max_tokens:
            self._over = "length"

    def over(self) -> bool:
        """It has come to its end."""
        return self._over is not None

    def end(self) -> TokenOutput:
        """The end of one that was begun elsewhere, and of which only its end is missing."""
        return self._output((), self._text.flush(), self._text.stop)

    def tell(self, output: Any) -> TokenOutput:
        """What is new in vLLM's RequestOutput. Raises ModelFailed where it ended for no reason of the request's."""
        completion = output.outputs[0]
        self._cached = min(output.num_cached_tokens or 0, len(self._request.prompt))
        reason = completion.finish_reason
        if reason not in {None, "stop", "length"}:
            raise ModelFailed(f"vLLM ended the generation: {reason}")
        tokens, pieces = list(completion.token_ids), list[str]()
        for place, token in enumerate(tokens):
            last = place == len(tokens) - 1
            pieces.append(self._text.push(token, reason if last else None))
            if self._text.stop is not None:  # what vLLM has drawn beyond it is not wanted
                reason, tokens = "stop", tokens[: place + 1]
                break
        if reason is not None and not tokens:
            pieces.append(self._text.flush())
        self._count += len(tokens)
        self._over = reason
        stop = self._text.stop if self._text.stop is not None else completion.stop_reason
        return self._output(tuple(tokens), "".join(pieces), stop, completion.logprobs)

    def _output(
        self,
        tokens: tuple[int, ...],
        text: str,
        stop: str | int | None,
        logprobs: Sequence[Mapping[int, Any]] | None = None,
    ) -> TokenOutput:
        return TokenOutput(
            id=self._request.id,
            index=self._request.index,
            token_ids=tokens,
            text=text,
            logprobs=_logprobs(tokens, logprobs, self._request.params) if logprobs else None,
            finish_reason=self._over,
            stop_reason=stop,
            prompt_tokens=len(self._request.prompt),
            cached_tokens=self._cached,
            output_tokens=self._count,
        )


def _logprobs(
    tokens: Sequence[int], given: Sequence[Mapping[int, Any]], params: SamplingParams
) -> tuple[Logprobs, ...]:
    """vLLM has the drawn token among the best ones, or behind them."""
    made = []
    for token, entries in zip(tokens, given, strict=False):
        best = sorted(((each.rank, number, each.logprob) for number, each in entries.items()), key=lambda each: each[0])
        top = tuple((number, logprob) for rank, number, logprob in best if rank <= (params.logprobs or 0))
        made.append(Logprobs(entries[token].logprob, entries[token].rank, top))
    return tuple(made)
