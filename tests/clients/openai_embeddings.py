"""OpenAI's client asks for vectors, run by tests/e2e/test_embeddings.py: `openai_embeddings.py URL EXPECTED`.

EXPECTED is JSON: texts, their token ids, and their vectors, from whoever knows the model.
"""

import json
import sys
from typing import Any

import openai
from openai import OpenAI

MODEL = "encoder"


def close(vector: list[float], wanted: list[float]) -> bool:
    """Up to the last digits of float32."""
    return len(vector) == len(wanted) and max(abs(a - b) for a, b in zip(vector, wanted, strict=True)) < 1e-5


def vectors(client: OpenAI, expected: dict[str, Any]) -> None:
    """A text, texts, token ids; as the client asks by itself (base64) and as numbers."""
    texts, ids, wanted = expected["texts"], expected["ids"], expected["vectors"]
    for asked, places in ((texts[0], [0]), (texts, range(len(texts))), (ids[0], [0]), (ids, range(len(ids)))):
        for options in ({}, {"encoding_format": "float"}, {"dimensions": len(wanted[0])}):
            answer = client.embeddings.create(model=MODEL, input=asked, **options)
            assert [each.index for each in answer.data] == list(range(len(places)))
            for place, each in zip(places, answer.data, strict=True):
                assert close(each.embedding, wanted[place]), (asked, options)
            assert answer.usage.prompt_tokens == answer.usage.total_tokens == sum(len(ids[place]) for place in places)


def many(client: OpenAI, expected: dict[str, Any]) -> None:
    """More than one batch holds, in order."""
    texts = expected["texts"] * 50
    answer = client.embeddings.create(model=f"{MODEL}:1", input=texts)
    for number, each in enumerate(answer.data):
        assert close(each.embedding, expected["vectors"][number % len(expected["texts"])])


def errors(client: OpenAI, expected: dict[str, Any]) -> None:
    """Messages that say what was wrong."""
    cases: list[tuple[type[openai.APIStatusError], dict[str, Any], str]] = [
        (openai.NotFoundError, {"model": "nope"}, "no model 'nope'"),
        (openai.BadRequestError, {"model": "plain"}, "'plain' makes no embeddings"),
        (openai.BadRequestError, {"dimensions": 5}, "dimensions is 5"),
        (openai.BadRequestError, {"input": []}, "0 texts"),
        (openai.BadRequestError, {"input": ["x", ""]}, "input 1 is empty"),
        (openai.BadRequestError, {"input": "x " * 300}, "tokens; the model takes 1 to 64"),
        (openai.BadRequestError, {"input": [[-1]]}, "token ids are numbers from 0"),
        (openai.BadRequestError, {"input": [1, 700]}, "there is no token 700"),
    ]
    for kind, wrong, message in cases:
        try:
            client.embeddings.create(**{"model": MODEL, "input": "x", **wrong})
        except kind as error:
            assert message in error.message, error.message
        else:
            raise AssertionError(f"{wrong} was taken")


def main(url: str, expected: dict[str, Any]) -> None:
    """Everything."""
    with OpenAI(base_url=url, api_key="none", max_retries=0) as client:
        assert MODEL in [model.id for model in client.models.list()]
        for check in (vectors, many, errors):
            check(client, expected)


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
