"""A model that crashes its process, one that never loads and one that leaks: other models' callers see no error."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from headrace import Client
from headrace.client.errors import FailedPreconditionError, HeadraceError, InternalError
from headrace.client.registry import RegistryClient
from tests.e2e.conftest import ready
from tests.e2e.test_rollouts import publish_unloadable
from tests.support import models
from tests.support.stack import RunningStack, running_stack, wait_until

ROOT = Path(__file__).resolve().parents[2]
HOSTILE = Path(models.__file__).parent / "hostile_models"
GOOD = ("good-1", "good-2")
ZEROS = np.zeros((1, 16), np.float32)
PATIENCE = 60


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """Two workers in which some models have the faults that tests/support/hostile_models gives them."""
    folder = tmp_path_factory.mktemp("hostile")
    environment = {"PYTHONPATH": f"{HOSTILE}:{ROOT}", "HEADRACE_MEMORY_LIMIT": "700MiB"}
    with running_stack(folder, workers=2, environment=environment) as up:
        with RegistryClient(up.address("registry")) as registry, Client(up.address("gateway")) as client:
            for name in GOOD:
                registry.push(name, models.add_one(folder / f"{name}.onnx"))
                wait_until(lambda name=name: ready(client, name), f"{name} to be ready")  # type: ignore[misc]
        yield up


def push(up: RunningStack, folder: Path, name: str) -> None:
    """add_one, whose first run is a caller's."""
    package = folder / name
    package.mkdir()
    models.add_one(package / "model.onnx")
    (package / "model.yaml").write_text("warmup: {disabled: true}\n")
    with RegistryClient(up.address("registry")) as registry:
        registry.push(name, package)


@contextmanager
def callers_of_the_good(up: RunningStack) -> Iterator[None]:
    """While the block runs, eight callers call the other models; none of their calls may fail."""
    stop, answered = threading.Event(), []

    def call(number: int) -> None:
        with Client(up.address("gateway")) as client:
            while not stop.is_set():
                result = client.infer(GOOD[number % 2], ZEROS, timeout=PATIENCE)
                assert (result.outputs["y"] == 1).all()
                answered.append(number)

    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(call, number) for number in range(8)]
        try:
            wait_until(lambda: len(answered) > 50 or any(item.done() for item in calls), "the first answers")
            yield
            before = len(answered)
            wait_until(lambda: len(answered) > before + 50 or any(item.done() for item in calls), "the last answers")
        finally:
            stop.set()
        for item in calls:
            item.result()


def test_a_model_that_crashes_on_a_run_takes_no_other_request_with_it(stack: RunningStack, tmp_path: Path) -> None:
    with callers_of_the_good(stack), Client(stack.address("gateway")) as client:
        before = stack.pid("worker-1"), stack.pid("worker-2")
        push(stack, tmp_path, "crashes-on-run")
        wait_until(lambda: ready(client, "crashes-on-run"), "it to be ready")
        with pytest.raises(InternalError, match="workers died while they ran this request"):
            client.infer("crashes-on-run", ZEROS, timeout=PATIENCE)
        wait_until(lambda: (stack.pid("worker-1"), stack.pid("worker-2")) != before, "a worker to be started again")
        with RegistryClient(stack.address("registry")) as registry:
            registry.delete_model("crashes-on-run")


def test_a_model_that_crashes_on_its_load_is_tried_twice_by_each_worker(stack: RunningStack, tmp_path: Path) -> None:
    with callers_of_the_good(stack), Client(stack.address("gateway")) as client:
        push(stack, tmp_path, "crashes-on-load")

        def refused() -> bool:
            try:
                client.infer("crashes-on-load", ZEROS, timeout=PATIENCE)
            except FailedPreconditionError as error:
                return "ended this worker's process 2 times while it was loaded" in str(error)
            except HeadraceError:
                return False
            return False

        wait_until(refused, "the reason to reach callers", PATIENCE)
        wait_until(lambda: len(client.status().workers) == 2, "both workers to be there")
        with RegistryClient(stack.address("registry")) as registry:
            registry.delete_model("crashes-on-load")


def test_a_model_that_never_loads_disturbs_nobody(stack: RunningStack, tmp_path: Path) -> None:
    with callers_of_the_good(stack), Client(stack.address("gateway")) as client:
        with RegistryClient(stack.address("registry")) as registry:
            registry.push("never-loads", models.add_one(tmp_path / "sound.onnx"))
            publish_unloadable(registry, "never-loads")
        wait_until(lambda: ready(client, "never-loads"), "it to be known")

        def reason() -> str:
            try:
                client.infer("never-loads", ZEROS, version="2", timeout=PATIENCE)
            except HeadraceError as error:
                return str(error)
            return ""

        wait_until(lambda: "does not load: ONNX Runtime cannot load" in reason(), "the reason to reach callers")


def test_a_worker_that_leaks_starts_again_and_loses_nothing(stack: RunningStack, tmp_path: Path) -> None:
    with callers_of_the_good(stack), Client(stack.address("gateway")) as client:
        push(stack, tmp_path, "leaks")
        wait_until(lambda: ready(client, "leaks"), "it to be ready")
        before = {name: stack.pid(name) for name in ("worker-1", "worker-2")}
        for _ in range(200):
            assert (client.infer("leaks", ZEROS, timeout=PATIENCE).outputs["y"] == 1).all()
        wait_until(lambda: any(stack.pid(name) != pid for name, pid in before.items()), "a worker to start again")
        assert any("some model leaks" in stack.log(name) for name in before)
