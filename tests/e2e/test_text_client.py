"""Our own client and the command line, on language models."""

import asyncio
import json
import subprocess
import sys

import pytest

from headrace import AsyncClient, Client
from headrace.client.errors import InvalidArgumentError
from tests.e2e.test_text import active, server, words
from tests.support.openai_server import text_of
from tests.support.stack import RunningStack, wait_until

__all__ = ["server", "words"]
CHAT = [{"role": "user", "content": "hello"}]


def test_the_client_generates_and_streams(words: RunningStack) -> None:
    with Client(words.address("gateway")) as client:
        whole = client.generate("words", "two words", temperature=0, max_tokens=8, timeout=30)
        assert (whole.text, whole.finish_reasons, whole.usage.completion_tokens) == (
            text_of("two words", length=8),
            ["length"],
            8,
        )
        pieces = list(client.stream("words", CHAT, temperature=0, max_tokens=8, timeout=30))
        assert "".join(piece.text for piece in pieces) == text_of("user: hello", length=8)
        assert [piece.finish_reason for piece in pieces if piece.finish_reason] == ["length"]
        assert pieces[-1].usage is not None
        with pytest.raises(InvalidArgumentError, match="temprature"):
            client.generate("words", "x", temprature=0)
        with pytest.raises(InvalidArgumentError, match="role and content"):
            client.generate("words", [{"rule": "user"}])


async def test_cancelling_whoever_reads_abandons_the_generation(words: RunningStack, server: str) -> None:
    async with AsyncClient(words.address("gateway")) as client:
        whole = await client.generate("words", [1, 2], temperature=0, max_tokens=4, timeout=30)
        assert whole.text == text_of("[1, 2]", length=4)
        begun = asyncio.Event()

        async def read() -> None:
            async for _ in client.stream("words", "long", max_tokens=100_000):
                begun.set()

        reading = asyncio.create_task(read())
        await asyncio.wait_for(begun.wait(), 30)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await asyncio.to_thread(wait_until, lambda: active(server)["active"] == 0, "the server to be told", 5)


def headrace(*arguments: str, said: str = "") -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "headrace.cli.main", *arguments]
    return subprocess.run(command, input=said, capture_output=True, text=True, timeout=60, check=False)


def test_generate_prints_the_text(words: RunningStack) -> None:
    options = ["--address", words.address("gateway"), "--temperature", "0", "--max-tokens", "6"]
    printed = headrace("generate", "words", "two words", *options)
    assert (printed.returncode, printed.stdout) == (0, text_of("two words", length=6) + "\n"), printed.stderr
    assert "6 tokens, the first after" in printed.stderr
    answer = json.loads(headrace("generate", "words", "-", "--json", *options, said="from a pipe").stdout)
    assert answer["texts"] == [text_of("from a pipe", length=6)]
    assert answer["usage"]["completion_tokens"] == 6
    refused = headrace("generate", "words", "x", "--sampling", '{"top_p": 3}', *options)
    assert (refused.returncode, "top_p is 3" in refused.stderr) == (2, True)


def test_chat_remembers_what_was_said(words: RunningStack) -> None:
    options = ["--address", words.address("gateway"), "--temperature", "0", "--max-tokens", "3", "--system", "be kind"]
    talked = headrace("chat", "words", *options, said="hello\nand then?\n")
    first = text_of("system: be kind\nuser: hello", length=3)
    second = text_of(f"system: be kind\nuser: hello\nassistant: {first}\nuser: and then?", length=3)
    assert (talked.returncode, talked.stdout) == (0, f"{first}\n{second}\n"), talked.stderr
