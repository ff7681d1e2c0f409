"""Headrace as a subject: `headrace up` with a gateway, a worker and a broker, spans and metrics on."""

import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from benchmarks.workloads import Workload
from headrace import Client
from headrace.client.errors import HeadraceError
from headrace.client.registry import RegistryClient
from tests.support.brokers import RABBITMQ_SCRIPTS, rabbitmq_server
from tests.support.collector import Received
from tests.support.stack import RunningStack, running_stack, wait_until


@contextmanager
def headrace(
    folder: Path, workloads: Sequence[Workload], collector: Received, *, rabbitmq: bool
) -> Iterator[RunningStack]:
    """A stack with the models pushed and loaded.

    Args:
        rabbitmq: on a RabbitMQ node of its own instead of the embedded broker.
    """
    folder.mkdir()
    with ExitStack() as parts:
        broker = ""
        if rabbitmq:
            (folder / "rabbitmq").mkdir()
            broker = parts.enter_context(rabbitmq_server(folder / "rabbitmq")).url
        environment = {"HEADRACE_OTLP": collector.endpoint}
        up = parts.enter_context(running_stack(folder / "data", broker=broker, environment=environment))
        with RegistryClient(up.address("registry")) as registry:
            for workload in workloads:
                registry.push(workload.name, workload.file)
        with Client(up.address("gateway")) as client:
            for workload in workloads:
                wait_until(partial(_ready, client, workload.name), f"{workload.name} to be ready")
        yield up


def why_no_rabbitmq() -> str:
    """Why RabbitMQ cannot run here; empty if it can."""
    return "" if RABBITMQ_SCRIPTS.is_dir() else "not installed: apt-get install rabbitmq-server"


def counted_requests(up: RunningStack) -> int:
    """What the gateway's Prometheus endpoint says it answered: shows that metrics were on."""
    with urllib.request.urlopen(f"http://{up.metrics('gateway')}/metrics", timeout=10) as response:
        lines = response.read().decode().splitlines()
    return int(sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("headrace_requests_total{")))


def _ready(client: Client, name: str) -> bool:
    try:
        return client.model_ready(name)
    except HeadraceError:  # the gateway has not heard of it yet
        return False
