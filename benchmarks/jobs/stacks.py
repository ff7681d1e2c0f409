"""The stacks that jobs are tried on."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from headrace import Client
from headrace.client.registry import RegistryClient
from tests.e2e.conftest import ready
from tests.support import models
from tests.support.brokers import rabbitmq_server
from tests.support.identity import identity
from tests.support.stack import RunningStack, running_stack, wait_until
from tests.support.stores import rclone_s3

# 20 ms a batch, of which 12 for its eight requests: one worker does 400 requests/s, whatever else the machine does.
BATCH_MS, REQUEST_MS, BATCH = 8.0, 1.5, 8


@dataclass(frozen=True, slots=True)
class Running:
    """A stack that is up.

    Attributes:
        restart_broker: kill -9 and a new start of a broker that is not the stack's own; None: it is.
    """

    up: RunningStack
    restart_broker: Callable[[], None] | None


@contextmanager
def running(folder: Path, *, rabbitmq: bool = False, workers: int = 2, gateways: int = 2) -> Iterator[Running]:
    """With the models `add_one` and `toy`, each ready at every gateway."""
    with ExitStack() as parts:
        restart = None
        broker_url = store_url = ""
        environment: dict[str, str] = {}
        if rabbitmq:
            (folder / "rabbitmq").mkdir()
            broker = parts.enter_context(rabbitmq_server(folder / "rabbitmq"))
            store = parts.enter_context(rclone_s3(folder / "s3"))
            broker_url, store_url, environment = broker.url, store.url, dict(store.environment)
            restart = broker.restart
        stack = running_stack(
            folder / "data",
            workers=workers,
            gateways=gateways,
            broker=broker_url,
            store=store_url,
            environment=environment,
        )
        up = parts.enter_context(stack)
        with RegistryClient(up.address("registry")) as registry:
            registry.push("add_one", models.add_one(folder / "add_one.onnx"))
            registry.push(
                "toy", identity(folder / "toy", batch_ms=BATCH_MS, request_ms=REQUEST_MS, max_batch_size=BATCH)
            )
        for name in (name for name in up.processes() if name.startswith("gateway")):
            with Client(up.address(name)) as client:
                for model in ("add_one", "toy"):
                    wait_until(partial(ready, client, model), model)
        yield Running(up, restart)


def say(line: str) -> None:
    """To the terminal, at once."""
    print(line, flush=True)
