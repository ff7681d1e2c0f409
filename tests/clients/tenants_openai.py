"""OpenAI's client with a tenant's key, run by tests/e2e/test_tenants.py: `tenants_openai.py HOST:PORT KEY`."""

import sys

import openai
from openai import OpenAI


def main(address: str, key: str) -> None:
    """Let in with the key, refused without."""
    with OpenAI(base_url=f"http://{address}/v1", api_key=key, max_retries=0) as client:
        assert [model.id for model in client.models.list()] == ["words"]
        stream = client.completions.create(model="words", prompt="x", max_tokens=3, stream=True)
        assert "".join(choice.text for chunk in stream for choice in chunk.choices)
        try:
            client.completions.create(model="secret", prompt="x")
        except openai.PermissionDeniedError as error:
            assert "may not use model 'secret'" in error.message
        else:
            raise AssertionError("a model that is not the tenant's was run")
    with OpenAI(base_url=f"http://{address}/v1", api_key="sk-unknown", max_retries=0) as client:
        try:
            client.chat.completions.create(model="words", messages=[{"role": "user", "content": "x"}])
        except openai.AuthenticationError as error:
            assert error.code == "invalid_api_key"
        else:
            raise AssertionError("an unknown key was let in")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
