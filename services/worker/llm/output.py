"""The text of one sequence's output: its tokens through the detokeniser and past the stop strings."""

from collections.abc import Sequence as Run

from services.worker.llm.detokenise import Decoder, Detokeniser
from services.worker.llm.request import FinishReason, GenerationRequest
from services.worker.llm.stops import StopStrings


class OutputText:
    """Feed it every output token in order; a function of the request and the tokens, whoever runs it.

    A request that resumes elsewhere has its `resume` tokens fed at the start, their text dropped: the caller has it.

    Args:
        decoder: the tokenizer, with special tokens shown or not as the request's parameters say.
    """

    def __init__(self, decoder: Decoder, request: GenerationRequest) -> None:
        params = request.params
        self._params = params
        self._detokeniser = Detokeniser(decoder, request.prompt)
        self._stops = StopStrings(params.stop, params.include_stop_str_in_output)
        self._fed = 0
        self._feed(request.resume)

    @property
    def stop(self) -> str | None:
        """The stop string that ended the text: finish the sequence with "stop" for it, whatever else ended it."""
        return self._stops.found

    def push(self, token: int, finish_reason: FinishReason | None = None) -> str:
        """The text that is certain now that a token has come.

        Args:
            finish_reason: how the scheduler ended the sequence with this token, if it did. The last piece has all that
                was held back. A token that ends the sequence by "stop" shows with `include_stop_str_in_output` only.
        """
        hidden = finish_reason == "stop" and not self._params.include_stop_str_in_output
        text = "" if hidden else self._feed((token,))
        return text if finish_reason is None else text + self.flush()

    def flush(self) -> str:
        """What was held back, when the sequence ends without another token."""
        return self._stops.push(self._detokeniser.flush()) + self._stops.flush()

    def _feed(self, tokens: Run[int]) -> str:
        text = ""
        for token in tokens:
            self._fed += 1
            text += self._stops.push(self._detokeniser.push(token), counts=self._fed >= self._params.min_tokens)
        return text
