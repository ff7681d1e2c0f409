"""From OpenAI's requests to GenerateRequests. Pure."""

import json

from headrace.v1.text_generation_pb2 import Chat, ChatMessage, GenerateRequest, SamplingParams, TokenIds
from services.common.errors import InvalidArgument, Unimplemented
from services.gateway.openai.schemas import (
    ChatCompletionRequest,
    CompletionRequest,
    ContentPart,
    Message,
    ResponseFormat,
    Sampling,
    StructuredOutputs,
)

MOST_PROMPTS = 128
# Fields that mean the same under the same name.
_PLAIN = (
    *("n", "temperature", "top_p", "presence_penalty", "frequency_penalty", "seed", "top_k", "min_p"),
    *("repetition_penalty", "min_tokens", "ignore_eos", "skip_special_tokens", "include_stop_str_in_output"),
)


def completion_requests(asked: CompletionRequest) -> list[GenerateRequest]:
    """One for each prompt. Raises InvalidArgument, Unimplemented."""
    if asked.suffix:
        raise Unimplemented("suffix is not offered; put everything into the prompt")
    if asked.best_of is not None and asked.best_of != (asked.n or 1):
        raise Unimplemented("best_of is not offered; ask for n and choose")
    prompts = _prompts(asked.prompt)
    if not 1 <= len(prompts) <= MOST_PROMPTS:
        raise InvalidArgument(f"prompt holds {len(prompts)} prompts; expected 1 to {MOST_PROMPTS}")
    if asked.echo and (asked.logprobs is not None or not all(isinstance(prompt, str) for prompt in prompts)):
        raise Unimplemented("echo is offered for text prompts without logprobs")
    sampling = _sampling(asked)
    _set(sampling, "max_tokens", asked.max_tokens)
    _set(sampling, "logprobs", asked.logprobs)
    made = []
    for prompt in prompts:
        request = _request(asked, sampling)
        if isinstance(prompt, str):
            request.text = prompt
        else:
            request.tokens.CopyFrom(_ids(prompt))
        made.append(request)
    return made


def chat_request(asked: ChatCompletionRequest) -> GenerateRequest:
    """Raises InvalidArgument, Unimplemented."""
    if asked.tools or asked.functions:
        raise Unimplemented("tools are not offered; leave tools and functions out")
    sampling = _sampling(asked)
    limit = asked.max_tokens if asked.max_completion_tokens is None else asked.max_completion_tokens
    if limit == 0:
        raise InvalidArgument("max_completion_tokens is 0; expected at least 1, or leave it out")
    # Chats have no limit of their own: as many tokens as the context has room for.
    _set(sampling, "max_tokens", limit or 0)
    if asked.top_logprobs is not None and not asked.logprobs:
        raise InvalidArgument("top_logprobs is given; it needs logprobs set to true")
    if asked.logprobs:
        _set(sampling, "logprobs", asked.top_logprobs or 0)
    request = _request(asked, sampling)
    request.chat.CopyFrom(Chat(messages=[_message(number, each) for number, each in enumerate(asked.messages)]))
    if asked.chat_template_kwargs:
        request.chat.template_arguments_json = json.dumps(asked.chat_template_kwargs)
    return request


def _request(asked: Sampling, sampling: SamplingParams) -> GenerateRequest:
    name, _, version = asked.model.partition(":")
    return GenerateRequest(model=name, version=version, sampling=sampling, priority=asked.priority)


def _sampling(asked: Sampling) -> SamplingParams:
    sampling = SamplingParams()
    for name in _PLAIN:
        _set(sampling, name, getattr(asked, name))
    for token, bias in (asked.logit_bias or {}).items():
        if token < 0:
            raise InvalidArgument(f"logit_bias has token id {token}; expected 0 or more")
        sampling.logit_bias[token] = bias
    sampling.stop.extend([asked.stop] if isinstance(asked.stop, str) else asked.stop or [])
    sampling.stop_token_ids.extend(_ids(asked.stop_token_ids or []).ids)
    if asked.response_format is not None:
        _set_format(sampling, asked.response_format)
    if (structured := _structured(asked)) is not None:
        _set_structured(sampling, structured)
    return sampling


def _set(sampling: SamplingParams, name: str, value: float | None) -> None:
    """Sets a field unless the caller left it out. Raises InvalidArgument where it does not hold such a number."""
    if value is None:
        return
    try:
        setattr(sampling, name, value)
    except ValueError as error:
        raise InvalidArgument(f"{name} is {value}; that is out of range") from error


def _set_format(sampling: SamplingParams, wanted: ResponseFormat) -> None:
    if wanted.type == "json_object":
        sampling.json_object = True
    elif wanted.type == "json_schema":
        schema = wanted.json_schema.json_schema if wanted.json_schema is not None else None
        if schema is None:
            raise InvalidArgument("response_format.json_schema.schema is missing; expected a JSON Schema")
        sampling.json = json.dumps(schema)


def _structured(asked: Sampling) -> StructuredOutputs | None:
    """By its new name or the old ones."""
    older = {
        name: value
        for name in ("json", "regex", "choice", "grammar")
        if (value := getattr(asked, f"guided_{name}")) is not None
    }
    return asked.structured_outputs or (StructuredOutputs(**older) if older else None)


def _set_structured(sampling: SamplingParams, wanted: StructuredOutputs) -> None:
    if wanted.grammar is not None:
        raise Unimplemented("grammars are not offered; use a JSON Schema, a regex or a choice")
    said = [wanted.json_schema is not None, wanted.regex is not None, wanted.choice is not None, wanted.json_object]
    if sum(map(bool, said)) != 1 or sampling.WhichOneof("structured") is not None:
        raise InvalidArgument(
            "structured_outputs needs exactly one of json, json_object, regex and choice, and nothing else"
        )
    if wanted.json_schema is not None:
        schema = wanted.json_schema
        sampling.json = schema if isinstance(schema, str) else json.dumps(schema)
    elif wanted.regex is not None:
        sampling.regex = wanted.regex
    elif wanted.choice is not None:
        sampling.choice.options.extend(wanted.choice)
        sampling.choice.SetInParent()
    else:
        sampling.json_object = True


def _prompts(prompt: str | list[int] | list[str] | list[list[int]]) -> list[str | list[int]]:
    if isinstance(prompt, str):
        return [prompt]
    if prompt and isinstance(prompt[0], int):
        return [[token for token in prompt if isinstance(token, int)]]
    return [each for each in prompt if not isinstance(each, int)]


def _ids(ids: list[int]) -> TokenIds:
    try:
        return TokenIds(ids=ids)
    except ValueError as error:
        raise InvalidArgument("token ids are numbers from 0 to the model's vocabulary") from error


def _message(number: int, message: Message) -> ChatMessage:
    return ChatMessage(role=message.role, content=_content(number, message.content))


def _content(number: int, content: str | list[ContentPart] | None) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    for part in content:
        if part.type != "text":
            raise Unimplemented(f"messages[{number}] has a part of type '{part.type}'; only text is offered")
    return "\n".join(part.text for part in content)
