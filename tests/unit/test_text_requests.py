"""Sampling parameters from the wire: defaults, presence, and ranges that are named where they are broken."""

import pytest

from headrace.v1.text_generation_pb2 import Choice
from headrace.v1.text_generation_pb2 import SamplingParams as Asked
from services.common.errors import InvalidArgument
from services.common.sampling import SamplingParams, StructuredOutput
from services.common.text_requests import sampling_params


def test_what_is_not_set_has_vllms_default() -> None:
    assert sampling_params(Asked()) == SamplingParams()


def test_what_is_set_to_zero_is_not_the_default() -> None:
    params = sampling_params(Asked(temperature=0, logprobs=0, min_tokens=0, skip_special_tokens=False, seed=0))
    assert (params.greedy, params.logprobs, params.skip_special_tokens, params.seed) == (True, 0, False, 0)


def test_no_limit_on_tokens_is_written_as_zero() -> None:
    assert sampling_params(Asked(max_tokens=0)).max_tokens is None
    assert sampling_params(Asked(max_tokens=7)).max_tokens == 7


def test_everything_else_keeps_its_name() -> None:
    asked = Asked(
        n=2, top_k=5, top_p=0.5, min_p=0.25, stop=["\n"], stop_token_ids=[3], logit_bias={7: -1.5}, ignore_eos=True
    )
    asked.json = '{"type": "object"}'
    params = sampling_params(asked)
    assert (params.n, params.top_k, params.top_p, params.min_p, params.ignore_eos) == (2, 5, 0.5, 0.25, True)
    assert (params.stop, params.stop_token_ids, dict(params.logit_bias)) == (("\n",), (3,), {7: -1.5})
    assert params.structured == StructuredOutput(json='{"type": "object"}')


def test_what_the_text_must_match_is_one_thing() -> None:
    assert sampling_params(Asked(regex="a+")).structured == StructuredOutput(regex="a+")
    choice = Asked(choice=Choice(options=["a", "b"]))
    assert sampling_params(choice).structured == StructuredOutput(choice=("a", "b"))
    for wrong in (Asked(choice=Choice()), Asked(choice=Choice(options=["a", ""]))):
        with pytest.raises(InvalidArgument, match=r"exactly one of json|choice has an empty text"):
            sampling_params(wrong)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (Asked(temperature=-1), r"temperature is -1\.0; expected 0"),
        (Asked(temperature=float("nan")), "temperature is nan"),
        (Asked(top_p=0), "top_p is 0.0; expected over 0 and at most 1"),
        (Asked(top_k=-2), "top_k is -2"),
        (Asked(n=0), "n is 0; expected at least 1"),
        (Asked(n=129), "n is 129; expected at most 128"),
        (Asked(logprobs=21), "logprobs is 21; expected at most 20"),
        (Asked(stop=[""]), "stop"),
        (Asked(max_tokens=3, min_tokens=4), "min_tokens is 4; expected from 0 to max_tokens"),
        (Asked(logit_bias={1: 101}), "logit_bias"),
        (Asked(stop=["x"] * 65), "stop has 65 strings"),
    ],
)
def test_what_is_out_of_range_is_named_with_the_range(asked: Asked, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        sampling_params(asked)
