"""A stack of two workers with the zoo pushed, and what the fleet says of itself."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.multi_model import zoo
from headrace import Client
from headrace.client.registry import RegistryClient
from headrace.v1.fleet_pb2 import LOAD_STATE_READY, Worker
from tests.support.stack import RunningStack, running_stack, wait_until

WORKERS = 2


@dataclass(frozen=True, slots=True)
class Fleet:
    """The workers together.

    Attributes:
        held: names of the models in some worker's memory.
        copies: models in memory, counted once for each worker that holds them.
    """

    loads: int
    evictions: int
    held: frozenset[str]
    copies: int
    used_bytes: int
    resident_bytes: int


def fleet(client: Client) -> Fleet:
    """As the workers last said."""
    workers: list[Worker] = list(client.status().workers)
    held = [model.name for worker in workers for model in worker.models if model.state == LOAD_STATE_READY]
    return Fleet(
        loads=sum(worker.loads for worker in workers),
        evictions=sum(worker.evictions for worker in workers),
        held=frozenset(held),
        copies=len(held),
        used_bytes=sum(worker.memory_used_bytes for worker in workers),
        resident_bytes=sum(worker.resident_bytes for worker in workers),
    )


def settled(client: Client) -> Fleet:
    """As they say once they have reported after now."""
    time.sleep(1.5)  # they report each second, and nothing in a report says when it was made
    return fleet(client)


@contextmanager
def zoo_stack(folder: Path, models: int, capacity: int, broker: str = "") -> Iterator[RunningStack]:
    """A stack whose workers hold `capacity` bytes together, with models 0, 1, … pushed and known to the gateway.

    Args:
        broker: a URL; empty: the embedded one.
    """
    environment = {"HEADRACE_MEMORY_BUDGET": str(capacity // WORKERS), "OMP_NUM_THREADS": "1"}
    with running_stack(folder / "data", workers=WORKERS, broker=broker, environment=environment) as up:
        with RegistryClient(up.address("registry")) as registry:
            for number in range(models):
                registry.push(zoo.name_of(number), zoo.package(folder / zoo.name_of(number), number))
        with Client(up.address("gateway")) as client:
            wait_until(lambda: len(client.status().models) == models, "the gateway to know all models", 60)
            wait_until(
                lambda: all(model.consumers == WORKERS for model in client.status().models), "all consumers", 120
            )
        yield up
