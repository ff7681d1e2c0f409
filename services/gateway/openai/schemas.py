"""What OpenAI's clients send, with vLLM's further parameters. Null means: the default. Pure."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Part(BaseModel):
    """What all bodies and their parts are."""

    # Parameters that steer nothing here (user, store, metadata …) are let pass, as other servers do.
    model_config = ConfigDict(extra="ignore")


class StreamOptions(Part):
    """How a stream ends."""

    include_usage: bool = False


class JsonSchema(Part):
    """A schema and its name."""

    name: str = ""
    json_schema: dict[str, Any] | None = Field(default=None, alias="schema")


class ResponseFormat(Part):
    """What the text must match."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class StructuredOutputs(Part):
    """vLLM's way to say what the text must match."""

    json_schema: dict[str, Any] | str | None = Field(default=None, alias="json")
    json_object: bool | None = None
    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None


class Sampling(Part):
    """What both endpoints have; ranges are checked where every protocol's are."""

    model: str
    n: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[int, float] | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    max_tokens: int | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    response_format: ResponseFormat | None = None
    # Beyond OpenAI's, as vLLM has them.
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    min_tokens: int | None = None
    stop_token_ids: list[int] | None = None
    ignore_eos: bool | None = None
    skip_special_tokens: bool | None = None
    include_stop_str_in_output: bool | None = None
    structured_outputs: StructuredOutputs | None = None
    # vLLM's older names for the same.
    guided_json: dict[str, Any] | str | None = None
    guided_regex: str | None = None
    guided_choice: list[str] | None = None
    guided_grammar: str | None = None
    priority: int = 0


class CompletionRequest(Sampling):
    """POST /v1/completions."""

    prompt: str | list[int] | list[str] | list[list[int]]
    logprobs: int | None = None
    echo: bool | None = None
    suffix: str | None = None
    best_of: int | None = None


class ContentPart(Part):
    """One part of a message's content."""

    type: str
    text: str = ""


class Message(Part):
    """One message of a chat."""

    role: str
    content: str | list[ContentPart] | None = None


class ChatCompletionRequest(Sampling):
    """POST /v1/chat/completions."""

    messages: list[Message]
    max_completion_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    tools: list[Any] | None = None
    functions: list[Any] | None = None
