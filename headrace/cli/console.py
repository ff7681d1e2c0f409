"""What all commands share: where output goes and what exit codes mean."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape

from headrace.client.errors import HeadraceError, InvalidArgumentError, NotFoundError, UnavailableError

EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_UNREACHABLE = 3


def out() -> Console:
    """Results."""
    return Console()


def err() -> Console:
    """Everything else."""
    return Console(stderr=True)


def print_json(value: Any) -> None:
    """For scripts: plain JSON, no colour, no wrapping."""
    print(json.dumps(value, indent=2))


@contextmanager
def exit_codes() -> Iterator[None]:
    """Turns client errors into a message and an exit code: 1 failed, 2 bad input, 3 nobody there."""
    try:
        yield
    except HeadraceError as error:
        err().print(f"[red]{error.code}[/red] {escape(str(error))}", highlight=False, soft_wrap=True)
        if isinstance(error, InvalidArgumentError | NotFoundError):
            raise typer.Exit(EXIT_BAD_INPUT) from error
        if isinstance(error, UnavailableError):
            err().print("Is the stack up? Start it with: headrace up", soft_wrap=True)
            err().print(
                "Does it speak TLS? Then: headrace --tls-ca FILE …, and --tls-cert FILE --tls-key FILE where it asks"
                " for a certificate (docs/security.md)",
                soft_wrap=True,
            )
            raise typer.Exit(EXIT_UNREACHABLE) from error
        raise typer.Exit(EXIT_FAILED) from error
