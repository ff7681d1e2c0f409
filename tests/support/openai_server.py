"""A small OpenAI-compatible server whose words are a function of prompt, seed and position.

It stands in for any such server (vLLM, llama.cpp, …): real HTTP, real server-sent events, and it stops when its client
hangs up. `python -m tests.support.openai_server DELAY_SECONDS` runs one; GET /active tells how many completions are
under way there, and how many were begun.
"""

import asyncio
import hashlib
import json
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

ROOT = Path(__file__).resolve().parents[2]
WORDS = ("water", "wheel", "größe", "日本", "mill", "channel", "naïve", "stone", "🌊", "grain", "flour", "sluice")


def text_of(prompt: str, *, seed: int = 0, greedy: bool = True, length: int = 16) -> str:
    """What the server answers, whole."""
    return "".join(word(prompt, 0 if greedy else seed, place) for place in range(length))


def word(prompt: str, seed: int, place: int) -> str:
    """One word and a space."""
    digest = hashlib.sha256(f"{prompt}|{seed}|{place}".encode()).digest()
    return WORDS[digest[0] % len(WORDS)] + " "


def application(delay: float) -> FastAPI:
    """The server; a word takes `delay` seconds."""
    app = FastAPI()
    counts = {"active": 0, "begun": 0}

    @app.get("/active")
    async def active() -> dict[str, int]:
        return counts

    @app.post("/v1/completions")
    async def completions(request: Request) -> Response:
        body = await request.json()
        if "forbidden" in str(body["prompt"]):
            message = "this prompt is not allowed"
            return JSONResponse({"error": {"message": message, "type": "invalid_request_error"}}, 400)
        return StreamingResponse(events(body, str(body["prompt"]), chat=False), media_type="text/event-stream")

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        body = await request.json()
        prompt = "\n".join(f"{message['role']}: {message['content']}" for message in body["messages"])
        return StreamingResponse(events(body, prompt, chat=True), media_type="text/event-stream")

    async def events(body: dict[str, Any], prompt: str, *, chat: bool) -> AsyncIterator[str]:
        counts["active"] += 1
        counts["begun"] += 1
        try:
            length = body.get("max_tokens", 20)
            seed = body["seed"] if body["temperature"] else 0
            for place in range(length):
                await asyncio.sleep(delay)
                yield sse(choice(word(prompt, seed, place), None, chat=chat))
            yield sse(choice("", "length" if "max_tokens" in body else "stop", chat=chat))
            usage = {"prompt_tokens": len(prompt.split()), "completion_tokens": length}
            yield sse({"choices": [], "usage": usage})
            yield "data: [DONE]\n\n"
        finally:
            counts["active"] -= 1

    return app


def choice(text: str, reason: str | None, *, chat: bool) -> dict[str, Any]:
    """One event."""
    said = {"delta": {"content": text}} if chat else {"text": text}
    return {"choices": [{"index": 0, "finish_reason": reason, **said}]}


def sse(event: dict[str, Any]) -> str:
    """As it is on the wire."""
    return f"data: {json.dumps(event)}\n\n"


@contextmanager
def openai_server(delay: float = 0.0) -> Iterator[str]:
    """A server as a process of its own; gives its base URL, with /v1."""
    command = [sys.executable, "-m", "tests.support.openai_server", str(delay)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line.startswith("ready "), "the OpenAI server did not start"
        yield line.split()[1]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def openai_package(folder: Path, url: str) -> Path:
    """A package that says where the model runs."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.yaml").write_text(f"runtime: openai\nopenai: {{base_url: '{url}', model: words}}\n")
    return folder


def main() -> None:
    """Serves on a free port until it is killed."""
    held = socket.socket()
    held.bind(("127.0.0.1", 0))
    print(f"ready http://127.0.0.1:{held.getsockname()[1]}/v1", flush=True)
    server = uvicorn.Server(uvicorn.Config(application(float(sys.argv[1])), log_level="warning", lifespan="off"))
    asyncio.run(server.serve([held]))


if __name__ == "__main__":
    main()
