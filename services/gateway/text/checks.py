"""Does a request fit the language model? Everything that can be known here is refused here. Pure."""

import json

from headrace.v1.text_generation_pb2 import Chat, GenerateRequest
from services.common.errors import InvalidArgument
from services.common.text_requests import sampling_params
from services.gateway.routes import Route

MOST_PROMPT_CHARACTERS = 8 * 1024 * 1024


def check(request: GenerateRequest, route: Route) -> int:
    """How many sequences are asked for.

    Raises:
        InvalidArgument: it does not fit; the message says what, and what was expected.
    """
    if not route.text:
        raise InvalidArgument(f"model '{route.name}' is no language model; send tensors with ModelInfer")
    params = sampling_params(request.sampling)
    match request.WhichOneof("prompt"):
        case "text":
            if not request.text:
                raise InvalidArgument("the prompt is empty; send at least one character")
            if len(request.text) > MOST_PROMPT_CHARACTERS:
                raise InvalidArgument(f"the prompt has {len(request.text)} characters, over {MOST_PROMPT_CHARACTERS}")
        case "tokens":
            _check_tokens(request, route)
        case "chat":
            _check_chat(request.chat, route)
        case _:
            raise InvalidArgument("the request has no prompt; set text, tokens or chat")
    limit = route.spec_version.spec.text.max_model_len
    if limit and params.max_tokens is not None and params.max_tokens > limit:
        raise InvalidArgument(f"max_tokens is {params.max_tokens}; the model's context holds {limit}, prompt included")
    if params.structured is not None and params.structured.json is not None:
        _check_schema(params.structured.json)
    return params.n


def _check_tokens(request: GenerateRequest, route: Route) -> None:
    ids, text = request.tokens.ids, route.spec_version.spec.text
    if not ids:
        raise InvalidArgument("the prompt is empty; send at least one token id")
    if text.vocab_size and (wrong := max(ids)) >= text.vocab_size:
        raise InvalidArgument(f"the prompt holds token id {wrong}; the model's ids are 0 to {text.vocab_size - 1}")
    if text.max_model_len and len(ids) >= text.max_model_len:
        raise InvalidArgument(
            f"the prompt has {len(ids)} tokens; the model's context holds {text.max_model_len} and at least one must be"
            " left to generate"
        )


def _check_chat(chat: Chat, route: Route) -> None:
    if not route.spec_version.spec.text.chat:
        raise InvalidArgument(f"model '{route.name}' has no chat template; send a prompt, or push one with the model")
    if not chat.messages:
        raise InvalidArgument("the chat has no messages; send at least one")
    for number, message in enumerate(chat.messages):
        if not message.role:
            raise InvalidArgument(f"messages[{number}] has no role; expected system, user, assistant or the like")
    if chat.template_arguments_json:
        try:
            arguments = json.loads(chat.template_arguments_json)
        except (ValueError, RecursionError) as error:
            raise InvalidArgument(f"template_arguments_json is not JSON: {error}") from error
        if not isinstance(arguments, dict):
            raise InvalidArgument("template_arguments_json is no JSON object")


def _check_schema(text: str) -> None:
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"the JSON Schema is not JSON: {error}") from error
    if not isinstance(schema, dict):
        raise InvalidArgument(f"the JSON Schema is a {type(schema).__name__}; expected an object")
