"""What holds of every orchestrator: processes of a supervisor, a Kubernetes API, a Docker engine where there is one."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from headrace.cli.pool import WorkerPool
from headrace.cli.supervisor import Child
from services.autoscaler.orchestrators.connect import connect
from services.autoscaler.orchestrators.docker import DockerEngine
from services.autoscaler.orchestrators.kubernetes import Deployment
from services.autoscaler.orchestrators.port import Orchestrator
from services.autoscaler.orchestrators.processes import Processes
from services.common.errors import FailedPrecondition, HeadraceError, InvalidArgument, PermissionDenied, Unavailable
from tests.support.docker_engine import compose_service, engine
from tests.support.kubernetes import Cluster, kubernetes_api

TOY = (
    "import signal, sys\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\n"
    "print('ready toy 127.0.0.1:1', flush=True)\nsignal.pause()"
)


def pool(folder: Path) -> WorkerPool:
    (folder / "toy.py").write_text(TOY)

    def make(name: str) -> Child:
        return Child(name, "toy", {"PYTHONPATH": str(folder)}, folder / f"{name}.log")

    def keep(child: Child) -> None:
        child.task = asyncio.create_task(child.keep(lambda child, code: None, lambda: None))

    return WorkerPool(make, keep, lambda: None, print)


def deployment(url: str, cluster: Cluster, folder: Path) -> Deployment:
    (folder / "token").write_text(f"{cluster.token}\n")
    return Deployment(url, "models", "workers", token_path=folder / "token")


@pytest.fixture(params=["processes", "kubernetes", "docker"])
async def orchestrator(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Orchestrator]:
    async with AsyncExitStack() as parts:
        made: Orchestrator
        if request.param == "processes":
            workers = pool(tmp_path)
            address = await parts.enter_async_context(workers.serving())
            parts.push_async_callback(workers.stop)
            made = Processes(address)
        elif request.param == "kubernetes":
            url, cluster = parts.enter_context(kubernetes_api())
            made = deployment(url, cluster, tmp_path)
        else:
            client = await asyncio.to_thread(engine)
            if client is None or shutil.which("busybox") is None:
                pytest.skip("no Docker engine here, or no busybox to make an image of")
            made = DockerEngine(client, parts.enter_context(compose_service(client)), "worker")
        parts.push_async_callback(made.close)
        yield made


async def staying(orchestrator: Orchestrator, count: int) -> list[str]:
    """The ids of those that stay, once there are so many and nobody leaves any more."""
    async with asyncio.timeout(60):
        while True:
            found = await orchestrator.instances()
            if len(found) == count and not any(instance.leaving for instance in found):
                return [instance.id for instance in found]
            await asyncio.sleep(0.05)


async def until(condition: Callable[[], bool]) -> None:
    """Processes have no event to wait for."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_workers_come_and_those_named_leave(orchestrator: Orchestrator) -> None:
    assert await orchestrator.instances() == []
    await orchestrator.add(3)
    listed = await orchestrator.instances()
    assert len(listed) >= 3  # at once: nobody asks for them again
    ids = await staying(orchestrator, 3)
    assert len(set(ids)) == 3
    await orchestrator.remove([ids[1]])
    assert set(await staying(orchestrator, 2)) == {ids[0], ids[2]}
    await orchestrator.add(2)
    assert {ids[0], ids[2]} < set(await staying(orchestrator, 4))
    await orchestrator.remove(await staying(orchestrator, 4))
    await staying(orchestrator, 0)
    # Out of nothing again.
    await orchestrator.add(1)
    await staying(orchestrator, 1)


async def test_ages_are_counted_from_when_they_were_asked_for(orchestrator: Orchestrator) -> None:
    await orchestrator.add(1)
    await staying(orchestrator, 1)
    (instance,) = await orchestrator.instances()
    assert 0 <= instance.age < 60
    assert instance.names


async def test_a_process_that_crashes_comes_back_under_its_name(tmp_path: Path) -> None:
    workers = pool(tmp_path)
    async with workers.serving() as address:
        processes = Processes(address)
        await processes.add(1)
        await staying(processes, 1)
        await until(lambda: bool(workers.children[0].task))
        process = workers.children[0].process
        assert process is not None
        process.kill()
        await until(lambda: workers.children[0].process is not process)
        assert await staying(processes, 1) == ["worker-1"]
        await processes.close()
        await workers.stop()


async def test_one_that_is_told_to_leave_while_it_starts_leaves(tmp_path: Path) -> None:
    workers = pool(tmp_path)
    async with workers.serving() as address:
        processes = Processes(address)
        await processes.add(2)
        await processes.remove(["worker-1", "worker-2", "worker-3"])
        await staying(processes, 0)
        await processes.close()
        await workers.stop()


async def test_kubernetes_keeps_the_pods_that_were_not_chosen_whatever_their_age(tmp_path: Path) -> None:
    with kubernetes_api() as (url, cluster):
        workers = deployment(url, cluster, tmp_path)
        await workers.add(4)
        await workers.remove(["workers-001", "workers-003"])
        assert set(cluster.deleted) == {"workers-001", "workers-003"}
        assert cluster.replicas == 2


async def test_replicas_that_are_still_to_be_made_are_on_their_way(tmp_path: Path) -> None:
    with kubernetes_api() as (url, cluster):
        workers = deployment(url, cluster, tmp_path)
        cluster.replicas = 2
        assert [instance.names for instance in await workers.instances()] == [frozenset(), frozenset()]


async def test_what_is_wrong_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with kubernetes_api() as (url, cluster):
        (tmp_path / "wrong").write_text("wrong")
        with pytest.raises(PermissionDenied, match="service account"):
            await Deployment(url, "models", "workers", token_path=tmp_path / "wrong").instances()
        missing = deployment(url, cluster, tmp_path)
        missing._name = "nowhere"
        with pytest.raises(HeadraceError, match="404"):
            await missing.instances()
    with pytest.raises(Unavailable, match="does not answer"):
        await deployment(url, cluster, tmp_path).instances()
    away = Processes("/nowhere/supervisor")
    with pytest.raises(HeadraceError):
        await away.instances()
    await away.close()
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(FailedPrecondition, match="not in a pod"):
        await connect("kubernetes://models/workers")
    with pytest.raises(InvalidArgument, match="expected processes://"):
        await connect("swarm://x")
    assert await connect("none") is None
