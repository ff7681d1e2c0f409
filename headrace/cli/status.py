"""status: a live table of models, queues and workers."""

import contextlib
import time
from typing import Annotated, Any

import typer
from google.protobuf.json_format import MessageToDict
from rich.console import Group
from rich.live import Live
from rich.table import Table

from headrace.cli import scale
from headrace.cli.console import exit_codes, out, print_json
from headrace.client.inference import DEFAULT_ADDRESS, Client
from headrace.v1.autoscaler_pb2 import GetScalingResponse
from headrace.v1.fleet_pb2 import HeldModel, LoadState, Worker
from headrace.v1.gateway_pb2 import GetStatusResponse


def status(
    once: Annotated[bool, typer.Option("--once", help="Print the table once and exit.")] = False,
    every: Annotated[float, typer.Option(help="Seconds between two looks.", min=0.1)] = 1.0,
    address: Annotated[
        str, typer.Option("--address", envvar="HEADRACE_ADDRESS", help="The gateway.")
    ] = DEFAULT_ADDRESS,
    autoscaler: scale.Address = scale.DEFAULT_ADDRESS,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON once, for scripts.")] = False,
) -> None:
    """Show models, queue depth, workers, batch sizes and latency."""
    with exit_codes(), Client(address) as client:
        if as_json:
            print_json(_plain(client.status(), scale.scaling(autoscaler)))
            return
        if once or not out().is_terminal:
            out().print(_render(client.status(), scale.scaling(autoscaler)))
            return
        # Ctrl-C is how a person leaves the table: no failure.
        with (
            contextlib.suppress(KeyboardInterrupt),
            Live(_render(client.status(), scale.scaling(autoscaler)), console=out(), auto_refresh=False) as live,
        ):
            while True:
                time.sleep(every)
                live.update(_render(client.status(), scale.scaling(autoscaler)), refresh=True)


def _plain(state: GetStatusResponse, scaling: GetScalingResponse | None) -> dict[str, Any]:
    plain = MessageToDict(state, preserving_proto_field_name=True)
    return plain | ({"autoscaler": MessageToDict(scaling, preserving_proto_field_name=True)} if scaling else {})


def _render(state: GetStatusResponse, scaling: GetScalingResponse | None) -> Group:
    if state.single_replica:
        return Group(f"single replica ({state.front})", _models(state))
    parts = {"registry": state.registry_connected, "broker": state.broker_connected}
    health = "  ".join(f"{name} {'[green]up[/green]' if up else '[red]away[/red]'}" for name, up in parts.items())
    return Group(
        f"gateway {state.gateway_id} ({state.front})  {health}",
        *([scale.headline(scaling)] if scaling else []),
        _models(state),
        *([_rollouts(state)] if state.rollouts else []),
        _workers(state),
    )


def _models(state: GetStatusResponse) -> Table:
    table = Table("model", "version", title="models", title_justify="left")
    figures = ["in flight", "answered", "failed", "req/s", "p50 ms", "p99 ms", "mean batch"]
    for heading in figures if state.single_replica else ["queued", *figures, "workers"]:
        table.add_column(heading, justify="right")
    for model in state.models:
        batches = sum(model.batch_sizes.values())
        mean = sum(rows * count for rows, count in model.batch_sizes.items()) / batches if batches else 0.0
        seen = [
            str(model.in_flight),
            f"{model.answered:,}",
            f"[red]{model.failed:,}[/red]" if model.failed else "0",
            f"{model.requests_per_second:,.1f}",
            f"{model.p50_ms:.2f}",
            f"{model.p99_ms:.2f}",
            f"{mean:.1f}",
        ]
        if not state.single_replica:
            seen = [str(model.queued), *seen, str(model.consumers)]
        table.add_row(model.name, str(model.version), *seen)
    return table


def _rollouts(state: GetStatusResponse) -> Table:
    table = Table(
        "model", "production", "on trial", "copies alike / different / failed", "last change", title="rollouts"
    )
    table.title_justify = "left"
    for item in state.rollouts:
        rollout, shadow = item.rollout, item.shadow
        trial = f"{rollout.candidate} ({'shadow ' if rollout.shadow else ''}{rollout.weight} %)"
        table.add_row(
            item.name,
            str(rollout.stable),
            trial if rollout.candidate else "",
            f"{shadow.matched:,} / {shadow.differed:,} / {shadow.failed:,}" if item.HasField("shadow") else "",
            rollout.reason,
        )
    return table


def _held(model: HeldModel) -> str:
    state = "" if model.state == LoadState.LOAD_STATE_READY else LoadState.Name(model.state)[11:].lower()
    progress = f" {model.progress:.0%}" if model.state == LoadState.LOAD_STATE_LOADING else ""
    return f"{model.name}:{model.version}" + (f" ({state}{progress})" if state else "")


def _budget(worker: Worker) -> str:
    used = f"{worker.memory_used_bytes / 2**20:,.0f}"
    return f"{used} of {worker.memory_budget_bytes / 2**20:,.0f}" if worker.memory_budget_bytes else used


def _workers(state: GetStatusResponse) -> Table:
    table = Table("worker", "device", title="workers", title_justify="left")
    for heading in ("running", "completed", "memory MiB", "models MiB"):
        table.add_column(heading, justify="right")
    table.add_column("models")
    for worker in state.workers:
        table.add_row(
            worker.id,
            worker.device,
            str(worker.running),
            f"{worker.completed:,}",
            f"{worker.resident_bytes / 2**20:,.0f}",
            _budget(worker),
            ", ".join(map(_held, worker.models)),
        )
    return table
