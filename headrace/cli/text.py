"""generate and chat: a language model from the terminal."""

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from headrace.cli.console import err, exit_codes, print_json
from headrace.client.errors import HeadraceError, InvalidArgumentError
from headrace.client.inference import DEFAULT_ADDRESS, Client
from headrace.client.text import Prompt, TextPiece

Name = Annotated[str, typer.Argument(help="The model's name.")]
Version = Annotated[str, typer.Option(help="A number or an alias; empty: the latest.")]
MaxTokens = Annotated[int | None, typer.Option(help="Most tokens to generate; 0: as many as there is room for.", min=0)]
Temperature = Annotated[float | None, typer.Option(help="0 takes the likeliest token each time.")]
Seed = Annotated[int | None, typer.Option(help="The same seed draws the same text.")]
Further = Annotated[
    str, typer.Option("--sampling", help='Further parameters as JSON, such as {"top_p": 0.9, "stop": ["\\n"]}.')
]
Timeout = Annotated[float, typer.Option(help="Seconds.")]
Address = Annotated[str, typer.Option("--address", envvar="HEADRACE_ADDRESS", help="The gateway.")]


def generate(
    name: Name,
    prompt: Annotated[str, typer.Argument(help="What the text goes on after; - reads it from standard input.")],
    max_tokens: MaxTokens = 256,
    temperature: Temperature = None,
    seed: Seed = None,
    further: Further = "",
    version: Version = "",
    timeout: Timeout = 600.0,
    address: Address = DEFAULT_ADDRESS,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON when all is there, for scripts.")] = False,
) -> None:
    """Stream generated text to the terminal."""
    text = sys.stdin.read() if prompt == "-" else prompt
    with exit_codes(), Client(address) as client:
        sampling = _sampling(further, max_tokens=max_tokens, temperature=temperature, seed=seed)
        if as_json:
            result = client.generate(name, text, version=version, timeout=timeout, **sampling)
            print_json(
                {
                    "texts": result.texts,
                    "finish_reasons": result.finish_reasons,
                    "model_version": result.model_version,
                    "usage": _usage(result.usage),
                }
            )
            return
        if sampling.get("n", 1) != 1:
            raise InvalidArgumentError("n is over 1; several texts cannot be told apart on a terminal, use --json")
        _show(client.stream(name, text, version=version, timeout=timeout, **sampling))


def chat(
    name: Name,
    system: Annotated[str, typer.Option(help="What the model is told before the chat.")] = "",
    max_tokens: MaxTokens = None,
    temperature: Temperature = None,
    seed: Seed = None,
    further: Further = "",
    version: Version = "",
    timeout: Timeout = 600.0,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Talk to a model. Ctrl-C stops an answer, Ctrl-D ends the chat."""
    messages: list[dict[str, str]] = [{"role": "system", "content": system}] if system else []
    console = err()
    with exit_codes(), Client(address) as client:
        sampling = _sampling(further, max_tokens=max_tokens or 0, temperature=temperature, seed=seed)
        while (said := _listen(console)) is not None:
            if not said:
                continue
            asked: Prompt = [*messages, {"role": "user", "content": said}]
            try:
                answer = _show(client.stream(name, asked, version=version, timeout=timeout, **sampling))
            except HeadraceError as error:
                if not messages or not console.is_terminal:
                    raise
                # The chat so far is not thrown away for one answer.
                console.print(f"[red]{error.code}[/red] {escape(str(error))}", highlight=False, soft_wrap=True)
                continue
            messages += [{"role": "user", "content": said}, {"role": "assistant", "content": answer}]


def _listen(console: Console) -> str | None:
    """One line; None at the end of the input."""
    try:
        return console.input("[bold]> [/bold]" if sys.stdin.isatty() else "").strip()
    except (EOFError, KeyboardInterrupt):
        return None


def _show(pieces: Iterator[TextPiece]) -> str:
    """Prints pieces as they come, and what they were in the end; returns the text."""
    pace, texts = Pace(time.monotonic()), list[str]()
    try:
        for piece in pieces:
            sys.stdout.write(piece.text)
            sys.stdout.flush()
            texts.append(piece.text)
            if piece.usage is None:
                pace.came(time.monotonic(), len(piece.token_ids))
            else:
                print()
                err().print(f"[dim]{pace.summary(piece.usage.completion_tokens)}[/dim]", highlight=False)
    except KeyboardInterrupt:
        print()
        err().print("[dim]stopped[/dim]")
    return "".join(texts)


@dataclass(slots=True)
class Pace:
    """When the pieces of a text came, in seconds on a steady clock; `tokens` are those of the first."""

    began: float
    first: float | None = None
    last: float = 0.0
    tokens: int = 1

    def came(self, now: float, tokens: int) -> None:
        """One more piece; 0 tokens where the engine knows none."""
        if self.first is None:
            self.first, self.tokens = now, max(1, tokens)
        self.last = now

    def summary(self, tokens: int) -> str:
        """For a person. What came with the first piece says nothing of the pace, and if that was all there is none."""
        if self.first is None:
            return f"{tokens} tokens"
        wait, seconds, rest = (self.first - self.began) * 1000, self.last - self.first, tokens - self.tokens
        if rest <= 0 or seconds <= 0:
            return f"{tokens} tokens at once, after {wait:.0f} ms"
        return f"{tokens} tokens, the first after {wait:.0f} ms, then {rest / seconds:.1f} tokens/s"


def _sampling(further: str, **options: Any) -> dict[str, Any]:
    try:
        given = json.loads(further) if further else {}
    except ValueError as error:
        raise InvalidArgumentError(f"--sampling is not JSON: {error}") from error
    if not isinstance(given, dict):
        raise InvalidArgumentError(f"--sampling is a {type(given).__name__}; expected a JSON object")
    return {name: value for name, value in options.items() if value is not None} | given


def _usage(usage: Any) -> dict[str, int]:
    return {name: getattr(usage, name) for name in ("prompt_tokens", "completion_tokens", "cached_tokens")}
