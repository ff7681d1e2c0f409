"""promote, rollback: which version callers get who name none."""

from typing import Annotated

import typer

from headrace.cli.console import err, exit_codes, out
from headrace.cli.models import Name, Registry
from headrace.client.registry import DEFAULT_ADDRESS, RegistryClient
from headrace.v1.rollout_pb2 import Rollout, RolloutBounds


def promote(
    name: Name,
    version: Annotated[int, typer.Argument(help="The version that takes over.", min=1)],
    weight: Annotated[int, typer.Option(help="Per cent of request keys that get it.", min=0, max=100)] = 100,
    shadow: Annotated[bool, typer.Option("--shadow", help="Copy requests to it; compare, never return.")] = False,
    max_error_rate: Annotated[float, typer.Option(help="Share of failures over which it is taken back.")] = 0.05,
    max_p99_ms: Annotated[float, typer.Option(help="p99 over which it is taken back; 0: any.", min=0)] = 0.0,
    min_requests: Annotated[int, typer.Option(help="Nothing is decided on fewer.", min=1)] = 20,
    watch: Annotated[int, typer.Option(help="Seconds that it is watched after it took over.", min=1)] = 300,
    warm: Annotated[float, typer.Option(help="Seconds to wait until a worker holds it.", min=0)] = 120.0,
    registry: Registry = DEFAULT_ADDRESS,
) -> None:
    """Move callers to a version once it is loaded: all of them, or a share."""
    bounds = RolloutBounds(
        max_error_rate=max_error_rate, max_p99_ms=max_p99_ms, min_requests=min_requests, watch_seconds=watch
    )
    with exit_codes(), RegistryClient(registry) as client, err().status("") as line:
        rollout = client.promote(
            name, version, weight=weight, shadow=shadow, bounds=bounds, warm_seconds=warm, progress=line.update
        )
    _print(name, rollout)


def rollback(
    name: Name,
    reason: Annotated[str, typer.Option(help="Stands in the rollout's history.")] = "",
    registry: Registry = DEFAULT_ADDRESS,
) -> None:
    """End a trial, or go back to the version before."""
    with exit_codes(), RegistryClient(registry) as client:
        rollout = client.rollback(name, reason)
    _print(name, rollout)


def _print(name: str, rollout: Rollout) -> None:
    out().print(f"[bold]{name}[/bold] {rollout.reason}; production is version {rollout.stable}")
