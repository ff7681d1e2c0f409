"""scale: how many workers there are to be, why, and what an operator may change."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Annotated

import grpc
import typer
from google.protobuf.json_format import MessageToDict
from rich.console import Group
from rich.markup import escape
from rich.table import Table

from headrace.cli.console import exit_codes, out, print_json
from headrace.client.errors import InvalidArgumentError, from_rpc_error
from headrace.client.tls import open_channel
from headrace.v1 import autoscaler_pb2 as pb
from headrace.v1.autoscaler_pb2_grpc import AutoscalerServiceStub

DEFAULT_ADDRESS = "127.0.0.1:8005"
CALL_SECONDS = 5.0

Address = Annotated[
    str, typer.Option("--autoscaler", envvar="HEADRACE_AUTOSCALER", help="host:port of the autoscaler.")
]


def scale(
    least: Annotated[int | None, typer.Option("--min", help="The fewest workers from now on.", min=0)] = None,
    most: Annotated[int | None, typer.Option("--max", help="The most workers from now on.", min=1)] = None,
    pause: Annotated[
        bool | None, typer.Option("--pause/--resume", help="Decide on, but leave the workers as they are.")
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Print each decision that changes the number.")] = False,
    address: Address = DEFAULT_ADDRESS,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False,
) -> None:
    """Show what the autoscaler sees and decides; set its limits; pause it."""
    with exit_codes(), _stub(address) as stub:
        if least is not None or most is not None:
            _set_limits(stub, least, most)
        if pause is not None:
            stub.Pause(pb.PauseRequest(paused=pause), timeout=CALL_SECONDS)
        if watch:
            _watch(stub, as_json)
            return
        state = stub.GetScaling(pb.GetScalingRequest(), timeout=CALL_SECONDS)
    if as_json:
        print_json(MessageToDict(state, preserving_proto_field_name=True, always_print_fields_with_no_presence=True))
    else:
        out().print(Group(headline(state), _queues(state), _workers(state)))


def scaling(address: str) -> pb.GetScalingResponse | None:
    """What the autoscaler at this address says; None where there is none."""
    with open_channel(address, None) as channel:
        try:
            return AutoscalerServiceStub(channel).GetScaling(pb.GetScalingRequest(), timeout=1.0)
        except grpc.RpcError:
            return None


def headline(state: pb.GetScalingResponse) -> str:
    """One line: target, limits, reason."""
    decision = state.decision
    doing = "[yellow]paused[/yellow]" if state.paused else "active"
    if not state.active:
        doing = f"standby, active is {state.active_address or 'nobody yet'}"
    return (
        f"autoscaler {doing}: [bold]{decision.target}[/bold] of {state.min_workers}..{state.max_workers} workers"
        f" ({state.orchestrator}, {state.mode})  {escape(decision.reason)}"
    )


def _set_limits(stub: AutoscalerServiceStub, least: int | None, most: int | None) -> None:
    """The limit that is not given stays."""
    now = stub.GetScaling(pb.GetScalingRequest(), timeout=CALL_SECONDS)
    request = pb.SetLimitsRequest(
        min_workers=now.min_workers if least is None else least, max_workers=now.max_workers if most is None else most
    )
    if request.min_workers > request.max_workers:
        raise InvalidArgumentError(f"--min {request.min_workers} is over --max {request.max_workers}; give both")
    stub.SetLimits(request, timeout=CALL_SECONDS)


def _watch(stub: AutoscalerServiceStub, as_json: bool) -> None:
    for response in stub.WatchDecisions(pb.WatchDecisionsRequest()):
        decision = response.decision
        if as_json:
            print_json(MessageToDict(decision, preserving_proto_field_name=True))
            continue
        at = datetime.fromtimestamp(decision.unix_ms / 1000).strftime("%H:%M:%S")
        out().print(f"{at}  {decision.previous} → [bold]{decision.target}[/bold]  {escape(decision.reason)}")


def _queues(state: pb.GetScalingResponse) -> Table:
    table = Table("model", title="queues", title_justify="left")
    for heading in ("backlog", "jobs", "ready", "unacknowledged", "in/s", "out/s", "ms each", "oldest s"):
        table.add_column(heading, justify="right")
    for queue in state.queues:
        table.add_row(
            f"{queue.name}:{queue.version}",
            str(queue.backlog),
            str(queue.jobs),
            str(queue.ready),
            str(queue.unacknowledged),
            f"{queue.arrival_rate:,.1f}",
            f"{queue.service_rate:,.1f}",
            f"{queue.service_seconds * 1000:,.1f}" if queue.service_seconds else "?",
            f"{queue.oldest_seconds:,.1f}",
        )
    return table


def _workers(state: pb.GetScalingResponse) -> Table:
    table = Table("worker", "phase", title="workers", title_justify="left")
    for heading in ("running", "memory MiB", "age s"):
        table.add_column(heading, justify="right")
    table.add_column("models")
    for worker in state.workers:
        table.add_row(
            worker.id,
            pb.WorkerPhase.Name(worker.phase).removeprefix("WORKER_PHASE_").lower(),
            str(worker.running),
            f"{worker.resident_bytes / 2**20:,.0f}",
            f"{worker.age_seconds:,.0f}",
            ", ".join(worker.models),
        )
    return table


@contextmanager
def _stub(address: str) -> Iterator[AutoscalerServiceStub]:
    with open_channel(address, None) as channel:
        try:
            yield AutoscalerServiceStub(channel)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error
