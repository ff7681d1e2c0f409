"""OpenAI's client and the native engine, run by tests/e2e/test_serve_text.py: `openai_native.py URL EXPECTED`.

EXPECTED is JSON: a prompt's greedy tokens as text with their log probabilities, from transformers.
"""

import json
import re
import sys
from typing import Any

import openai
from openai import OpenAI

MODEL = "words"


def completion_logprobs(client: OpenAI, expected: dict[str, Any]) -> None:
    """Whole and streamed: the tokens, their log probabilities, and the best ones beside each."""
    asked: dict[str, Any] = {
        "model": MODEL,
        "prompt": expected["prompt"],
        "temperature": 0,
        "max_tokens": len(expected["tokens"]),
        "logprobs": 2,
    }
    whole = client.completions.create(**asked).choices[0].logprobs
    assert whole is not None
    check(whole.tokens or [], whole.token_logprobs or [], expected)
    for token, logprob, best in zip(
        whole.tokens or [], whole.token_logprobs or [], whole.top_logprobs or [], strict=True
    ):
        assert best is not None
        assert len(best) <= 2 and best[token] == max(best.values()) == logprob, "greedy: the drawn one is the best"
    tokens, logprobs = list[str](), list[float]()
    for chunk in client.completions.create(**asked, stream=True):
        for choice in chunk.choices:
            if choice.logprobs is not None:
                tokens += choice.logprobs.tokens or []
                logprobs += choice.logprobs.token_logprobs or []
    check(tokens, logprobs, expected)


def chat_logprobs(client: OpenAI, expected: dict[str, Any]) -> None:
    """An entry for each token of the message."""
    messages: Any = [{"role": "user", "content": "hi"}]
    answer = client.chat.completions.create(
        model=MODEL, messages=messages, temperature=0, max_tokens=6, logprobs=True, top_logprobs=3
    )
    listed = answer.choices[0].logprobs
    assert listed is not None and listed.content is not None
    assert len(listed.content) == (answer.usage.completion_tokens if answer.usage else 0)
    for entry in listed.content:
        assert len(entry.top_logprobs) == 3
        assert entry.top_logprobs[0].logprob >= entry.top_logprobs[2].logprob
        assert abs(entry.top_logprobs[0].logprob - entry.logprob) < 1e-4
        assert entry.bytes is None or bytes(entry.bytes).decode() == entry.token
    plain = client.chat.completions.create(model=MODEL, messages=messages, max_tokens=2)
    assert plain.choices[0].logprobs is None


def structured(client: OpenAI, expected: dict[str, Any]) -> None:
    """As vLLM's users ask for it, by the new name and by the old ones."""

    def text(**body: Any) -> str:
        answer = client.completions.create(model=MODEL, prompt="x", max_tokens=60, seed=1, extra_body=body)
        assert answer.choices[0].finish_reason == "stop"
        return str(answer.choices[0].text)

    assert re.fullmatch(r"[a-c]{3}-[0-9]", text(structured_outputs={"regex": r"[a-c]{3}-[0-9]"}))
    assert re.fullmatch(r"[0-9]{4}", text(guided_regex=r"[0-9]{4}"))
    assert text(structured_outputs={"choice": ["left", "right"]}) in {"left", "right"}
    assert text(guided_choice=["up"]) == "up"
    assert json.loads(text(guided_json={"type": "boolean"})) in {True, False}
    wrongs: list[tuple[dict[str, Any], str]] = [
        ({"guided_regex": "(("}, "expected a regular expression"),
        ({"structured_outputs": {"regex": "a", "choice": ["b"]}}, "exactly one of json"),
        ({"guided_grammar": "root ::= x"}, "grammars are not offered"),
    ]
    for wrong, message in wrongs:
        try:
            text(**wrong)
        except openai.BadRequestError as error:
            assert message in error.message, error.message
        else:
            raise AssertionError(f"{wrong} was taken")


def check(tokens: list[str], logprobs: list[float], expected: dict[str, Any]) -> None:
    """Up to what rounding does."""
    assert tokens == expected["tokens"], tokens
    assert all(abs(a - b) < 1e-3 for a, b in zip(logprobs, expected["logprobs"], strict=True)), logprobs


if __name__ == "__main__":
    with OpenAI(base_url=sys.argv[1], api_key="none", max_retries=0) as connected:
        for run in (completion_logprobs, chat_logprobs, structured):
            run(connected, json.loads(sys.argv[2]))
