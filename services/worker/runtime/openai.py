"""A model behind an OpenAI-compatible HTTP server, as a TextEngine: one streamed completion for each sequence.

The server tokenises and applies its chat template, so no token ids are known here: positions are counted in characters.
A generation that was begun elsewhere is asked for again as a whole, with the same seed, and what its caller has already
is compared and left out; a server that does not repeat itself cannot be gone on with, and the caller is told so.
"""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import httpx2

from headrace.v1.model_pb2 import RemoteServer
from headrace.v1.text_generation_pb2 import GenerateRequest
from services.common.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    HeadraceError,
    InvalidArgument,
    ModelFailed,
    QueueFull,
    Unavailable,
)
from services.common.sampling import SamplingParams, StructuredOutput
from services.worker.llm.port import EngineStats, GenerationRequest, TokenOutput
from services.worker.text.model import Prompt

DEFAULT_MAX_NUM_SEQS = 128
CONNECT_SECONDS = 5.0
_DEFAULTS = SamplingParams()
# Sent only where they differ from the default, since plain OpenAI servers know none of them.
_BEYOND_OPENAI = (
    *("top_k", "min_p", "repetition_penalty", "min_tokens", "ignore_eos", "skip_special_tokens"),
    *("include_stop_str_in_output", "stop_token_ids"),
)


class RemotePrompts:
    """Implements Prompts: passes on what the client wrote."""

    def read(self, request: GenerateRequest) -> Prompt:
        """Text and messages go on as they are, token ids too."""
        match request.WhichOneof("prompt"):
            case "tokens":
                return Prompt(tuple(request.tokens.ids))
            case "chat":
                if request.chat.template_arguments_json:
                    raise InvalidArgument("arguments for the chat template cannot be passed on to an OpenAI server")
                messages = request.chat.messages
                return Prompt(source=tuple({"role": each.role, "content": each.content} for each in messages))
            case _:
                return Prompt(source=request.text)

    def piece(self, token_id: int) -> str:
        """No token ids are known, so none are asked for."""
        return ""


class RemoteEngine:
    """Implements TextEngine.

    Args:
        max_num_seqs: most completions that are under way at the server; further ones wait here.

    Raises:
        FailedPrecondition: the key's environment variable is not set on this worker.
    """

    def __init__(self, server: RemoteServer, max_num_seqs: int = 0) -> None:
        headers = {}
        if server.api_key_env:
            if not (key := os.environ.get(server.api_key_env)):
                raise FailedPrecondition(f"set {server.api_key_env} for this worker: it holds the key of the server")
            headers["authorization"] = f"Bearer {key}"
        self._model = server.model
        self._most = max_num_seqs or DEFAULT_MAX_NUM_SEQS
        limits = httpx2.Limits(max_connections=self._most, max_keepalive_connections=self._most)
        self._http = httpx2.AsyncClient(
            base_url=server.base_url.rstrip("/") + "/",
            headers=headers,
            limits=limits,
            timeout=httpx2.Timeout(None, connect=CONNECT_SECONDS),
        )
        self._turns = asyncio.Semaphore(self._most)
        self._running = 0
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._gathered: list[TokenOutput] = []
        self._wake = asyncio.Event()
        self._closed = False

    def submit(self, request: GenerationRequest) -> None:
        """Raises InvalidArgument for what such a server cannot give."""
        if request.params.logprobs is not None:
            raise InvalidArgument("logprobs are not offered for models behind an OpenAI server; leave them out")
        task = asyncio.create_task(self._run(request), name=f"completion {request.id}")
        self._tasks[request.id] = task
        task.add_done_callback(lambda _: self._tasks.pop(request.id, None))

    def abort(self, request_id: str) -> None:
        """Hangs up: the server notices and stops."""
        if (task := self._tasks.pop(request_id, None)) is not None:
            task.cancel()

    async def outputs(self) -> AsyncIterator[list[TokenOutput]]:
        """What has gathered since the last turn."""
        while not self._closed:
            await self._wake.wait()
            self._wake.clear()
            gathered, self._gathered = self._gathered, []
            yield gathered

    def stats(self) -> EngineStats:
        """The server's memory is its own affair."""
        return EngineStats(running=self._running, waiting=len(self._tasks) - self._running)

    async def close(self) -> None:
        """Hangs up on everything; `outputs` ends."""
        self._closed = True
        self._wake.set()
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._http.aclose()

    def _give(self, output: TokenOutput) -> None:
        self._gathered.append(output)
        self._wake.set()

    async def _run(self, request: GenerationRequest) -> None:
        try:
            async with AsyncExitStack() as stack:
                await stack.enter_async_context(asyncio.timeout_at(_on_loop(request.deadline)))
                await stack.enter_async_context(self._turns)
                self._running += 1
                stack.callback(self._leave)
                await self._stream(request)
        except TimeoutError:
            self._abandon(request, DeadlineExceeded("the deadline passed while the server was generating"))
        except httpx2.TransportError as error:
            self._abandon(request, Unavailable(f"the OpenAI server cannot be reached or broke off: {error!r}"))
        except HeadraceError as error:
            self._abandon(request, error)
        except (ValueError, KeyError, TypeError, LookupError) as error:
            self._abandon(request, ModelFailed(f"the OpenAI server's answer cannot be read: {error!r}"))

    def _leave(self) -> None:
        self._running -= 1

    def _abandon(self, request: GenerationRequest, error: HeadraceError) -> None:
        self._give(TokenOutput(id=request.id, index=request.index, finish_reason="abort", error=error))

    async def _stream(self, request: GenerationRequest) -> None:
        path, body = completion(request, self._model)
        known = _Known(request.resume_text)
        reason = ""
        usage: dict[str, Any] = {}
        async with self._http.stream("POST", path, json=body) as response:
            if response.status_code != 200:
                raise _refusal(response.status_code, (await response.aread()).decode(errors="replace"))
            async for line in response.aiter_lines():
                if not line.startswith("data:") or (data := line[5:].strip()) == "[DONE]":
                    continue
                event: dict[str, Any] = json.loads(data)
                if "error" in event:
                    raise ModelFailed(f"the OpenAI server failed: {_message(event)}")
                usage = event.get("usage") or usage
                for choice in event["choices"]:
                    text = choice["delta"].get("content") if "delta" in choice else choice["text"]
                    if text and (new := known.new(text)):
                        self._give(TokenOutput(id=request.id, index=request.index, text=new))
                    reason = choice.get("finish_reason") or reason
        if not reason:
            raise Unavailable("the OpenAI server's stream ended without a finish reason")
        self._give(
            TokenOutput(
                id=request.id,
                index=request.index,
                finish_reason="length" if reason == "length" else "stop",
                prompt_tokens=usage.get("prompt_tokens", 0),
                cached_tokens=(usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0,
                output_tokens=usage.get("completion_tokens", 0),
            )
        )


@dataclass(slots=True)
class _Known:
    """What the caller has already and must come again."""

    rest: str

    def new(self, text: str) -> str:
        """What is new of the text. Raises FailedPrecondition where the server tells another story."""
        if not self.rest:
            return text
        common = min(len(text), len(self.rest))
        if text[:common] != self.rest[:common]:
            raise FailedPrecondition(
                "the worker died, and the OpenAI server gave another text when it was asked again: this generation"
                " cannot be gone on with; send it again, with temperature 0 or a seed if the server honours it"
            )
        self.rest = self.rest[common:]
        return text[common:]


def completion(request: GenerationRequest, model: str) -> tuple[str, dict[str, Any]]:
    """Path and body of the HTTP request."""
    params = request.params
    body: dict[str, Any] = {
        "model": model,
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": params.temperature,
        "top_p": params.top_p,
        "presence_penalty": params.presence_penalty,
        "frequency_penalty": params.frequency_penalty,
        # Servers differ in how large a seed may be; all take 31 bits.
        "seed": request.seed >> 32,
    }
    if params.max_tokens is not None:
        body["max_tokens"] = params.max_tokens
    if params.stop:
        body["stop"] = list(params.stop)
    if params.logit_bias:
        body["logit_bias"] = {str(token): bias for token, bias in params.logit_bias.items()}
    body |= {
        name: getattr(params, name) for name in _BEYOND_OPENAI if getattr(params, name) != getattr(_DEFAULTS, name)
    }
    if params.structured is not None:
        body |= _structured(params.structured)
    if isinstance(request.source, tuple):
        return "chat/completions", {**body, "messages": list(request.source)}
    return "completions", {**body, "prompt": list(request.prompt) or request.source}


def _structured(wanted: StructuredOutput) -> dict[str, Any]:
    """In OpenAI's form where it has one, else in vLLM's."""
    if wanted.json_object:
        return {"response_format": {"type": "json_object"}}
    if wanted.json is not None:
        schema = {"name": "answer", "strict": True, "schema": json.loads(wanted.json)}
        return {"response_format": {"type": "json_schema", "json_schema": schema}}
    return {"structured_outputs": wanted.named()}


def _refusal(status: int, text: str) -> HeadraceError:
    try:
        message = _message(json.loads(text))
    except ValueError:
        message = text[:500]
    said = f"the OpenAI server refused ({status}): {message}"
    if status in {400, 413, 422}:
        return InvalidArgument(said)
    if status == 429:
        return QueueFull(said)
    if status in {401, 403, 404}:
        return FailedPrecondition(said)
    return Unavailable(said) if status in {502, 503, 504} else ModelFailed(said)


def _message(body: dict[str, Any]) -> str:
    error = body.get("error", body)
    return str(error.get("message", error) if isinstance(error, dict) else error)


def _on_loop(deadline: float) -> float | None:
    """A time on the monotonic clock as one on the event loop's."""
    if deadline == float("inf"):
        return None
    loop = asyncio.get_running_loop()
    return loop.time() + deadline - time.monotonic()
