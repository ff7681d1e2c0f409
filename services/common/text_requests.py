"""From the wire's sampling parameters to checked ones: the gateway refuses by it, the worker runs by it. Pure."""

from headrace.v1.text_generation_pb2 import SamplingParams as Asked
from services.common.errors import InvalidArgument
from services.common.sampling import SamplingParams, StructuredOutput

# vLLM's limits, where it has some.
MOST_SEQUENCES = 128
MOST_LOGPROBS = 20
MOST_STOPS = 64
# Fields that mean the same under the same name.
_PLAIN = {
    *("n", "temperature", "top_k", "top_p", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty"),
    *("seed", "ignore_eos", "min_tokens", "logprobs", "skip_special_tokens", "include_stop_str_in_output"),
}


def sampling_params(asked: Asked) -> SamplingParams:
    """What was asked for, with defaults for the rest.

    Raises:
        InvalidArgument: a value is out of range; the message names it and the range.
    """
    given = {field.name: value for field, value in asked.ListFields() if field.name in _PLAIN}
    if asked.HasField("max_tokens"):
        given["max_tokens"] = asked.max_tokens or None
    match asked.WhichOneof("structured"):
        case "json":
            given["structured"] = StructuredOutput(json=asked.json)
        case "json_object" if asked.json_object:
            given["structured"] = StructuredOutput(json_object=True)
        case "regex":
            given["structured"] = StructuredOutput(regex=asked.regex)
        case "choice":
            given["structured"] = StructuredOutput(choice=tuple(asked.choice.options))
    params = SamplingParams(
        stop=tuple(asked.stop),
        stop_token_ids=tuple(asked.stop_token_ids),
        logit_bias=dict(asked.logit_bias),
        **given,
    )
    if params.n > MOST_SEQUENCES:
        raise InvalidArgument(f"n is {params.n}; expected at most {MOST_SEQUENCES}")
    if params.logprobs is not None and params.logprobs > MOST_LOGPROBS:
        raise InvalidArgument(f"logprobs is {params.logprobs}; expected at most {MOST_LOGPROBS}")
    if len(params.stop) > MOST_STOPS:
        raise InvalidArgument(f"stop has {len(params.stop)} strings; expected at most {MOST_STOPS}")
    return params
