"""Generation for `Client` and `AsyncClient`: whole texts, and streams of pieces."""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc

from headrace.client.errors import InvalidArgumentError, from_rpc_error
from headrace.v1 import text_generation_pb2 as pb
from headrace.v1.text_generation_pb2_grpc import TextGenerationServiceStub

if TYPE_CHECKING:
    from headrace.v1.text_generation_pb2_grpc import TextGenerationServiceAsyncStub

# Text, token ids, or messages with role and content.
Prompt = str | Sequence[int] | Sequence[Mapping[str, str]]
_REASONS = {pb.FINISH_REASON_STOP: "stop", pb.FINISH_REASON_LENGTH: "length"}


@dataclass(frozen=True, slots=True)
class TextPiece:
    """What came next of one sequence.

    Attributes:
        index: which of the n sequences.
        token_ids: empty where the engine knows none.
        finish_reason: "stop" or "length" on the last piece of a sequence, else empty.
        usage: set on the stream's last piece, which is of no sequence and has no text.
    """

    index: int
    text: str
    token_ids: tuple[int, ...] = ()
    finish_reason: str = ""
    usage: pb.Usage | None = None


@dataclass(frozen=True, slots=True)
class TextResult:
    """A whole answer: one text, and one reason why it ended, for each of the n sequences."""

    texts: list[str]
    finish_reasons: list[str]
    token_ids: list[list[int]]
    usage: pb.Usage
    model_version: int

    @property
    def text(self) -> str:
        """The first sequence's."""
        return self.texts[0]


def make_generate_request(model: str, prompt: Prompt, version: str, sampling: Mapping[str, Any]) -> pb.GenerateRequest:
    """The request message. Raises InvalidArgumentError for names and types that do not fit."""
    try:
        request = pb.GenerateRequest(model=model, version=version, sampling=pb.SamplingParams(**sampling))
    except (ValueError, TypeError) as error:
        known = ", ".join(pb.SamplingParams.DESCRIPTOR.fields_by_name)
        raise InvalidArgumentError(f"sampling parameters do not fit ({error}); known are {known}") from error
    if isinstance(prompt, str):
        request.text = prompt
        return request
    try:
        if prompt and isinstance(prompt[0], Mapping):
            request.chat.messages.extend(pb.ChatMessage(**message) for message in prompt)  # type: ignore[arg-type]  # looked at the first only
        else:
            request.tokens.CopyFrom(pb.TokenIds(ids=prompt))  # type: ignore[arg-type]  # likewise
    except (ValueError, TypeError) as error:
        raise InvalidArgumentError(
            f"the prompt does not fit ({error}); expected text, token ids, or messages with role and content"
        ) from error
    return request


class TextCalls:
    """What Client can do with language models."""

    _text: TextGenerationServiceStub

    def generate(
        self, model: str, prompt: Prompt, *, version: str = "", timeout: float | None = None, **sampling: Any
    ) -> TextResult:
        """The whole text at once.

        Args:
            prompt: text, token ids, or chat messages.
            sampling: vLLM's names: max_tokens, temperature, top_p, top_k, n, seed, stop, json, …
        """
        request = make_generate_request(model, prompt, version, sampling)
        try:
            return _result(self._text.Generate(request, timeout=timeout))
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error

    def stream(
        self, model: str, prompt: Prompt, *, version: str = "", timeout: float | None = None, **sampling: Any
    ) -> Iterator[TextPiece]:
        """Pieces as they come; closing the iterator abandons the generation."""
        call = self._text.GenerateStream(make_generate_request(model, prompt, version, sampling), timeout=timeout)
        try:
            for event in call:
                yield _piece(event)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error
        finally:
            call.cancel()


class AsyncTextCalls:
    """The same for AsyncClient."""

    _text: "TextGenerationServiceAsyncStub"

    async def generate(
        self, model: str, prompt: Prompt, *, version: str = "", timeout: float | None = None, **sampling: Any
    ) -> TextResult:
        """As Client.generate; cancelling it abandons the generation."""
        request = make_generate_request(model, prompt, version, sampling)
        try:
            return _result(await self._text.Generate(request, timeout=timeout))
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error

    async def stream(
        self, model: str, prompt: Prompt, *, version: str = "", timeout: float | None = None, **sampling: Any
    ) -> AsyncIterator[TextPiece]:
        """As Client.stream; cancelling whoever reads, or closing it, abandons the generation."""
        call = self._text.GenerateStream(make_generate_request(model, prompt, version, sampling), timeout=timeout)
        try:
            async for event in call:
                yield _piece(event)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error
        finally:
            call.cancel()


def _result(response: pb.GenerateResponse) -> TextResult:
    return TextResult(
        texts=[each.text for each in response.sequences],
        finish_reasons=[_REASONS.get(each.finish_reason, "") for each in response.sequences],
        token_ids=[list(each.token_ids) for each in response.sequences],
        usage=response.usage,
        model_version=response.model_version,
    )


def _piece(event: pb.GenerateStreamResponse) -> TextPiece:
    if event.WhichOneof("event") == "usage":
        return TextPiece(0, "", usage=event.usage)
    chunk = event.chunk
    return TextPiece(chunk.index, chunk.text, tuple(chunk.token_ids), _REASONS.get(chunk.finish_reason, ""))
