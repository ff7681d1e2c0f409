"""OpenAI's client against a running stack, run by tests/e2e/test_text_clients.py: `openai_client.py URL EXPECTED`.

EXPECTED is JSON: what the model says, from whoever knows the model.
"""

import asyncio
import json
import sys
from typing import Any

import openai
from openai import AsyncOpenAI, OpenAI

MODEL = "words"
MESSAGES: Any = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"}]


def models(client: OpenAI, expected: dict[str, Any]) -> None:
    """Listing and asking for one."""
    assert MODEL in [model.id for model in client.models.list()]
    assert client.models.retrieve(MODEL).owned_by == "headrace"


def completions(client: OpenAI, expected: dict[str, Any]) -> None:
    """Whole, with usage; echo; several prompts with several choices each."""
    answer = client.completions.create(model=MODEL, prompt="two words", temperature=0, max_tokens=12)
    assert answer.choices[0].text == expected["completion"]
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage and (answer.usage.prompt_tokens, answer.usage.total_tokens) == (2, 14)
    echoed = client.completions.create(model=f"{MODEL}:1", prompt="two words", temperature=0, max_tokens=12, echo=True)
    assert echoed.choices[0].text == "two words" + expected["completion"]
    many = client.completions.create(model=MODEL, prompt=["two words", "three"], temperature=0, max_tokens=12, n=2)
    assert [choice.index for choice in many.choices] == [0, 1, 2, 3]
    assert [choice.text for choice in many.choices[:2]] == [expected["completion"]] * 2
    assert many.choices[2].text == many.choices[3].text == expected["three"]
    assert many.usage and many.usage.prompt_tokens == 3


def streamed_completion(client: OpenAI, expected: dict[str, Any]) -> None:
    """Pieces; the usage comes last and only when it is asked for."""
    stream = client.completions.create(
        model=MODEL,
        prompt="two words",
        temperature=0,
        max_tokens=12,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    assert "".join(choice.text for chunk in chunks for choice in chunk.choices) == expected["completion"]
    assert len(chunks) > 4
    assert [bool(chunk.usage) for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert chunks[-1].usage and chunks[-1].usage.completion_tokens == 12


def chat(client: OpenAI, expected: dict[str, Any]) -> None:
    """A message, and the same in deltas of which the first has the role."""
    answer = client.chat.completions.create(model=MODEL, messages=MESSAGES, temperature=0, max_completion_tokens=5)
    assert answer.choices[0].message.content == expected["chat"]
    assert answer.choices[0].message.role == "assistant"
    stream = client.chat.completions.create(
        model=MODEL, messages=MESSAGES, temperature=0, max_completion_tokens=5, stream=True, n=2, seed=1
    )
    texts, roles = ["", ""], [0, 0]
    for chunk in stream:
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            roles[choice.index] += choice.delta.role == "assistant"
    assert texts == [expected["chat"]] * 2
    assert roles == [1, 1]


def errors(client: OpenAI, expected: dict[str, Any]) -> None:
    """The client's own classes, with messages that say what was wrong."""
    cases: list[tuple[type[openai.APIStatusError], dict[str, Any], str]] = [
        (openai.NotFoundError, {"model": "nope"}, "no model 'nope'"),
        (openai.BadRequestError, {"temperature": -1}, "temperature is -1"),
        (openai.BadRequestError, {"top_p": 3}, "top_p is 3"),
        (openai.BadRequestError, {"n": -1}, "n is -1"),
        (openai.BadRequestError, {"prompt": "forbidden"}, "not allowed"),
        (openai.BadRequestError, {"prompt": []}, "0 prompts"),
        (openai.BadRequestError, {"suffix": "x"}, "suffix is not offered"),
        (openai.BadRequestError, {"extra_body": {"stop": 5}}, "stop"),
        (openai.BadRequestError, {"extra_body": {"response_format": {"type": "json_schema"}}}, "schema is missing"),
    ]
    for stream in (False, True):
        for kind, wrong, message in cases:
            try:
                client.completions.create(**{"model": MODEL, "prompt": "x", "max_tokens": 2, "stream": stream, **wrong})
            except kind as error:
                assert message in error.message, error.message
                assert isinstance(error.body, dict) and error.body["type"] == "invalid_request_error"
            else:
                raise AssertionError(f"{wrong} was taken")


async def leaving(url: str) -> None:
    """Cancelling a call, streamed or not, abandons it; the test looks at the server that runs the model."""
    async with AsyncOpenAI(base_url=url, api_key="none") as client:
        stream = await client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=100_000, stream=True)
        await anext(stream)
        await stream.close()
        whole = asyncio.ensure_future(client.completions.create(model=MODEL, prompt="x", max_tokens=100_000))
        await asyncio.sleep(0.5)
        whole.cancel()
        await asyncio.gather(whole, return_exceptions=True)


def main(url: str, expected: dict[str, Any]) -> None:
    """Everything."""
    with OpenAI(base_url=url, api_key="none", max_retries=0) as client:
        for check in (models, completions, streamed_completion, chat, errors):
            check(client, expected)
    asyncio.run(leaving(url))


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
