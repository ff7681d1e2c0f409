"""job: files of requests that are run when there is room."""

import os
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from google.protobuf.json_format import MessageToDict
from rich.markup import escape
from rich.table import Column, Table

from headrace.cli.console import EXIT_FAILED, exit_codes, out, print_json
from headrace.client.errors import InvalidArgumentError, UnavailableError
from headrace.client.jobs import DEFAULT_ADDRESS, ENDED, PIECE_BYTES, JobsClient
from headrace.v1 import jobs_pb2 as pb

app = typer.Typer(
    help="Run files of requests when there is room: results are kept, whatever dies.", no_args_is_help=True
)

JobId = Annotated[str, typer.Argument(metavar="JOB", help="The job's id.")]
Address = Annotated[str, typer.Option("--jobs", envvar="HEADRACE_JOBS", help="host:port of the job service.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]


@app.command()
def submit(
    file: Annotated[Path, typer.Argument(help="JSON lines; - reads them from the standard input.")],
    model: Annotated[
        str, typer.Option(help="NAME or NAME:VERSION: lines are what POST /v2/models/NAME/infer takes.")
    ] = "",
    endpoint: Annotated[str, typer.Option(help="Where lines go that are bodies only, such as /v1/completions.")] = "",
    hours: Annotated[int, typer.Option(help="How long it may take.", min=1)] = 24,
    follow: Annotated[bool, typer.Option("--watch", help="Stay and show how it gets on.")] = False,
    address: Address = DEFAULT_ADDRESS,
    as_json: AsJson = False,
) -> None:
    """Hand over a file of requests: bodies of one model, or lines in OpenAI's batch format."""
    with exit_codes(), JobsClient(address) as client:
        content: Path | Iterator[bytes] = _standard_input() if str(file) == "-" else _existing(file)
        job = client.submit(content, endpoint=_endpoint(model, endpoint), window_seconds=hours * 3600)
        if follow:
            out().print(job.id)
            job = _follow(address, job.id)
    _show(job, as_json)


@app.command()
def show(job: JobId, address: Address = DEFAULT_ADDRESS, as_json: AsJson = False) -> None:
    """Where a job stands."""
    with exit_codes(), JobsClient(address) as client:
        _show(client.get(job), as_json)


@app.command()
def watch(job: JobId, address: Address = DEFAULT_ADDRESS, as_json: AsJson = False) -> None:
    """Show how a job gets on until it has ended; fails unless it completed."""
    with exit_codes():
        ended = _follow(address, job)
    if as_json:
        _show(ended, as_json)
    if ended.state != pb.JOB_STATE_COMPLETED:
        raise typer.Exit(EXIT_FAILED)


@app.command("list")
def list_jobs(
    limit: Annotated[int, typer.Option(help="At most so many.", min=1, max=100)] = 20,
    after: Annotated[str, typer.Option(help="The last job of the page before.")] = "",
    address: Address = DEFAULT_ADDRESS,
    as_json: AsJson = False,
) -> None:
    """Jobs, newest first."""
    with exit_codes(), JobsClient(address) as client:
        jobs = client.list(limit, after)
    if as_json:
        print_json([_dict(job) for job in jobs])
        return
    # An id that is cut short is of no use.
    table = Table(Column("job", min_width=max((len(job.id) for job in jobs), default=0)), "state")
    for heading in ("done", "of", "failed"):
        table.add_column(heading, justify="right")
    table.add_column("submitted")
    table.add_column("to")
    for job in jobs:
        counts = [f"{count:,}" for count in (job.completed + job.failed, job.total, job.failed)]
        submitted = _when(job.created_unix_ms)
        table.add_row(job.id, _state(job), *counts, submitted, escape(job.endpoint or "each its own"))
    out().print(table)


@app.command()
def cancel(job: JobId, address: Address = DEFAULT_ADDRESS, as_json: AsJson = False) -> None:
    """Give up what is not answered yet; results so far are kept."""
    with exit_codes(), JobsClient(address) as client:
        _show(client.cancel(job), as_json)


@app.command()
def delete(job: JobId, address: Address = DEFAULT_ADDRESS) -> None:
    """Remove a job that has ended, with its results."""
    with exit_codes(), JobsClient(address) as client:
        client.delete(job)


@app.command()
def results(
    job: JobId,
    output: Annotated[bool, typer.Option("--output", help="Only requests that were answered.")] = False,
    errors: Annotated[bool, typer.Option("--errors", help="Only requests that failed.")] = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Print results so far, one JSON object a line, in the order of the requests."""
    with exit_codes(), JobsClient(address) as client:
        kind: pb.ResultKind.ValueType = pb.RESULT_KIND_UNSPECIFIED
        if output != errors:
            kind = pb.RESULT_KIND_OUTPUT if output else pb.RESULT_KIND_ERRORS
        for piece in client.results(job, kind):
            sys.stdout.buffer.write(piece)


def _follow(address: str, job: str) -> pb.Job:
    """Prints each change; a job service that dies meanwhile is asked again when it is back."""
    shown = ""
    with JobsClient(address) as client:
        latest = client.get(job)
        while latest.state not in ENDED:
            try:
                for latest in client.watch(job):
                    if (line := _line(latest)) != shown:
                        out().print(line, highlight=False)
                        shown = line
            except UnavailableError:
                out().print("[dim]the job service is away; the job is kept[/dim]")
                client.wait()
    return latest


def _standard_input() -> Iterator[bytes]:
    while piece := os.read(sys.stdin.fileno(), PIECE_BYTES):
        yield piece


def _existing(file: Path) -> Path:
    if not file.is_file():
        raise InvalidArgumentError(f"no file {file}")
    return file


def _endpoint(model: str, endpoint: str) -> str:
    if model and endpoint:
        raise InvalidArgumentError("--model and --endpoint say the same; give one")
    if not model:
        return endpoint
    name, _, version = model.partition(":")
    return f"/v2/models/{name}/versions/{version}/infer" if version else f"/v2/models/{name}/infer"


def _show(job: pb.Job, as_json: bool) -> None:
    if as_json:
        print_json(_dict(job))
        return
    out().print(f"[bold]{job.id}[/bold]  {_line(job)}", highlight=False, soft_wrap=True)
    times = f"submitted {_when(job.created_unix_ms)}"
    times += (
        f", ended {_when(job.ended_unix_ms)}" if job.ended_unix_ms else f", may run until {_when(job.expires_unix_ms)}"
    )
    out().print(f"[dim]{times}[/dim]", highlight=False)


def _line(job: pb.Job) -> str:
    failed = f", [red]{job.failed:,} failed[/red]" if job.failed else ""
    return f"{_state(job)}: {job.completed + job.failed:,} of {job.total:,} done{failed}"


def _state(job: pb.Job) -> str:
    return pb.JobState.Name(job.state).removeprefix("JOB_STATE_").lower()


def _when(unix_ms: int) -> str:
    return datetime.fromtimestamp(unix_ms / 1000).strftime("%Y-%m-%d %H:%M:%S")


def _dict(job: pb.Job) -> Any:
    return MessageToDict(job, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
