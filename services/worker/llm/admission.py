"""Which requests can ever run, decided before they cost anything."""

from services.common.errors import InvalidArgument
from services.worker.llm.config import SchedulerConfig
from services.worker.llm.request import GenerationRequest
from services.worker.llm.sequence import Sequence


def sequence_of(request: GenerationRequest, number: int, config: SchedulerConfig) -> Sequence:
    """A request on its way; `number` is its place in the order of arrival. Raises as `length_limit` does."""
    eos = frozenset() if request.params.ignore_eos else config.eos_token_ids
    return Sequence(
        request=request,
        number=number,
        limit=length_limit(request, config),
        end_ids=eos.union(request.params.stop_token_ids),
        tokens=[*request.prompt, *request.resume],
    )


def length_limit(request: GenerationRequest, config: SchedulerConfig) -> int:
    """Tokens, prompt included, at which the request's sequence ends with "length".

    Raises:
        InvalidArgument: the request can never run here. The message says what is too much, the limit and the way out.
    """
    _check_ids(request, config)
    prompt, most = len(request.prompt), request.params.max_tokens
    room, what = _room(config)
    if prompt >= room:
        raise InvalidArgument(
            f"the prompt has {prompt} tokens, but {what} holds {room} and at least one must be left to generate; "
            "shorten the prompt"
        )
    if most is not None and prompt + most > room:
        raise InvalidArgument(
            f"prompt ({prompt} tokens) and max_tokens ({most}) come to {prompt + most}, but {what} holds {room}; "
            f"shorten the prompt or ask for max_tokens of at most {room - prompt}"
        )
    return room if most is None else prompt + most


def _room(config: SchedulerConfig) -> tuple[int, str]:
    # The last token generated is never read again, so its keys and values need no place in the pool.
    stored = config.num_blocks * config.block_size + 1
    if config.max_model_len <= stored:
        return config.max_model_len, "the model's context (max_model_len)"
    return stored, f"the KV pool of {config.num_blocks} blocks of {config.block_size} tokens"


def _check_ids(request: GenerationRequest, config: SchedulerConfig) -> None:
    if not request.prompt:
        raise InvalidArgument("the prompt is empty; send at least one token")
    params, last = request.params, config.vocab_size - 1
    for name, ids in (
        ("prompt", request.prompt),
        ("resume", request.resume),
        ("stop_token_ids", params.stop_token_ids),
        ("logit_bias", params.logit_bias),
    ):
        if ids and (min(ids) < 0 or max(ids) > last):
            wrong = next(i for i in ids if not 0 <= i <= last)
            raise InvalidArgument(f"{name} holds token id {wrong}; the model's vocabulary has ids 0 to {last}")
    if params.max_tokens is not None and len(request.resume) > params.max_tokens:
        raise InvalidArgument(
            f"{len(request.resume)} tokens to resume after are more than max_tokens ({params.max_tokens})"
        )
