"""up and serve: the whole local stack, or a single replica."""

import asyncio
import os
import re
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from headrace.cli.console import EXIT_FAILED, err
from headrace.cli.stack import Stack, StackOptions
from headrace.cli.supervisor import StartError


def up(
    workers: Annotated[
        str, typer.Option(help="How many workers: a number, or FEWEST..MOST for as many as the traffic needs.")
    ] = "1",
    gateways: Annotated[int, typer.Option(help="How many gateways; all but the first on free ports.", min=1)] = 1,
    data: Annotated[Path, typer.Option(help="Folder for the stack's state.")] = Path(".headrace"),
    port: Annotated[int, typer.Option(help="The gateway: gRPC, and HTTP with the Envoy front.")] = 8001,
    metrics_port: Annotated[int, typer.Option(help="The gateway's Prometheus endpoint.")] = 8002,
    http_port: Annotated[int, typer.Option(help="HTTP's own port with the grpc front.")] = 8000,
    registry_port: Annotated[int, typer.Option(help="The registry.")] = 8003,
    broker_port: Annotated[int, typer.Option(help="The embedded broker, where it is a process of its own.")] = 8004,
    autoscaler_port: Annotated[int, typer.Option(help="The autoscaler, if --workers is a range.")] = 8005,
    jobs_port: Annotated[int, typer.Option(help="The job service.")] = 8006,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    front: Annotated[str, typer.Option(help="auto, envoy or grpc.")] = "auto",
    broker: Annotated[
        str,
        typer.Option(
            help="amqp://… of RabbitMQ; embedded:// is the embedded broker in a process of its own, as with several"
            " gateways: by itself it lives in the gateway."
        ),
    ] = "",
    store: Annotated[str, typer.Option(help="s3://bucket/prefix?endpoint=… instead of a folder.")] = "",
    worker_memory: Annotated[
        str,
        typer.Option(help="What models may take in each worker, such as 2GiB; least recently used ones are evicted."),
    ] = "",
    otlp: Annotated[str, typer.Option(help="http[s]://host:port that takes traces and metrics by OTLP/gRPC.")] = "",
    tenants: Annotated[
        str, typer.Option(help="File with tenants and the hashes of their keys (docs/tenants.md).")
    ] = "",
) -> None:
    """Run the whole stack on this machine, in the foreground."""
    fewest, most = _workers(workers)
    environment = {"HEADRACE_OTLP": otlp} if otlp else {}
    if tenants:
        environment["HEADRACE_TENANTS"] = str(Path(tenants).resolve())
    options = StackOptions(
        data=data,
        workers=fewest,
        most_workers=most,
        gateways=gateways,
        host=host,
        port=port,
        metrics_port=metrics_port,
        http_port=http_port,
        registry_port=registry_port,
        broker_port=broker_port,
        autoscaler_port=autoscaler_port,
        jobs_port=jobs_port,
        front=front,
        broker=broker,
        store=store,
        worker_memory=worker_memory,
        environment=environment,
    )
    console = err()
    try:
        asyncio.run(Stack(options, lambda line: console.print(line, highlight=False, soft_wrap=True)).run())
    except StartError as error:
        console.print(f"[red]not started[/red] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise typer.Exit(EXIT_FAILED) from error


def _workers(said: str) -> tuple[int, int]:
    """ "3" → (3, 0): as many, always. "0..6" → (0, 6): the autoscaler decides."""
    match = re.fullmatch(r"(\d+)(?:\.\.(\d+))?", said.strip())
    if match is None or (match[2] and not int(match[1]) <= int(match[2]) > 0):
        raise typer.BadParameter(
            f"{said!r}: expected a number such as 2, or a range such as 0..6", param_hint="--workers"
        )
    return int(match[1]), int(match[2] or 0)


def serve(
    model: Annotated[str, typer.Argument(metavar="NAME_OR_PATH", help="A model in the registry, or a package's path.")],
    port: Annotated[int, typer.Option(help="gRPC, and HTTP with the Envoy front.")] = 8001,
    http_port: Annotated[int, typer.Option(help="HTTP's own port with the grpc front.")] = 8000,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    front: Annotated[str, typer.Option(help="auto, envoy or grpc.")] = "auto",
    registry: Annotated[str, typer.Option(help="host:port of the registry.")] = "127.0.0.1:8003",
) -> None:
    """Serve one model from one process: no queue, one request at a time; a language model takes many."""
    environment = {
        "HEADRACE_MODEL": model,
        "HEADRACE_LISTEN": f"{host}:{port}",
        "HEADRACE_HTTP_LISTEN": f"{host}:{http_port}",
        "HEADRACE_FRONT": front,
        "HEADRACE_REGISTRY": registry,
    }
    os.execve(sys.executable, [sys.executable, "-m", "services.single"], {**os.environ, **environment})
