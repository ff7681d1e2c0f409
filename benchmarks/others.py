"""The other servers as processes: the echo server from our own environment, the rest from benchmarks/peers.sh's."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.workloads import Workload
from headrace.cli.ports import free_port

SERVERS = Path(__file__).parent / "servers"
PEERS = Path(".venv-peers").resolve()
# Like Headrace's workers, every server runs its models in one thread.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def python_of(peer: str) -> Path:
    """The interpreter of a peer's environment."""
    return PEERS / peer / "bin/python"


def why_not(peer: str) -> str:
    """Why a peer cannot run here; empty if it can."""
    return "" if (PEERS / peer / ".installed").exists() else "not installed: sh benchmarks/peers.sh says why"


@contextmanager
def echo(folder: Path, workloads: Sequence[Workload]) -> Iterator[str]:
    """The bare grpc.aio server."""
    port = free_port()
    with _running([sys.executable, str(SERVERS / "echo.py"), str(port)], folder):
        yield f"127.0.0.1:{port}"


@contextmanager
def mlserver(folder: Path, workloads: Sequence[Workload]) -> Iterator[str]:
    """MLServer: batches of up to 64, gathered for 10 ms at most; its models run in its own process, the faster way."""
    port = free_port()
    settings = {
        "host": "127.0.0.1",
        "grpc_port": port,
        "http_port": free_port(),
        "metrics_endpoint": None,
        "parallel_workers": 0,
    }
    folder.mkdir()
    (folder / "settings.json").write_text(json.dumps(settings))
    for workload in workloads:
        model = folder / workload.name
        model.mkdir()
        settings = {
            "name": workload.name,
            "implementation": "mlserver_runtime.OnnxRuntime",
            "parameters": {"uri": str(workload.file)},
            "max_batch_size": 64,
            "max_batch_time": 0.01,
        }
        (model / "model-settings.json").write_text(json.dumps(settings))
    command = [str(python_of("mlserver").with_name("mlserver")), "start", str(folder)]
    with _running(command, folder, {"PYTHONPATH": str(SERVERS)}):
        yield f"127.0.0.1:{port}"


@contextmanager
def pytriton(folder: Path, workloads: Sequence[Workload]) -> Iterator[str]:
    """PyTriton: Triton in front, the models in a Python process beside it."""
    port = free_port()
    models = [f"{workload.name}={workload.file}:{workload.width}" for workload in workloads]
    command = [str(python_of("triton")), str(SERVERS / "pytriton_server.py"), str(port), str(free_port()), *models]
    with _running(command, folder):
        yield f"127.0.0.1:{port}"


@contextmanager
def triton(folder: Path, workloads: Sequence[Workload]) -> Iterator[str]:
    """NVIDIA's Triton, from PyTriton's wheel, with its Python backend and dynamic batching."""
    port = free_port()
    repository = folder / "repository"
    for workload in workloads:
        version = repository / workload.name / "1"
        version.mkdir(parents=True)
        shutil.copy(SERVERS / "triton_model.py", version / "model.py")
        (version.parent / "config.pbtxt").write_text(_triton_config(workload))
    package = next(PEERS.glob("triton/lib/python3*/site-packages/pytriton"))
    stub = package / "tritonserver/python_backend_stubs" / package.parents[1].name.removeprefix("python")
    backends = folder / "backends"
    shutil.copytree(package / "tritonserver/backends", backends)
    shutil.copy(stub / "triton_python_backend_stub", backends / "python")
    environment = {
        "LD_LIBRARY_PATH": str(package.parent / "nvidia_pytriton.libs"),
        "PYTHONPATH": str(package.parent),
        "PATH": f"{python_of('triton').parent}:{os.environ['PATH']}",
    }
    command = [str(package / "tritonserver/bin/tritonserver")]
    command += [f"--model-repository={repository}", f"--backend-directory={backends}", "--allow-http=false"]
    command += ["--allow-metrics=false", "--grpc-address=127.0.0.1", f"--grpc-port={port}"]
    with _running(command, folder, environment):
        yield f"127.0.0.1:{port}"


def _triton_config(workload: Workload) -> str:
    def tensor(name: str) -> str:
        return f'{{ name: "{name}" data_type: TYPE_FP32 dims: [ {workload.width} ] }}'

    def parameter(key: str, value: Path) -> str:
        return f'{{ key: "{key}" value: {{ string_value: "{value}" }} }}'

    return f"""
name: "{workload.name}"
backend: "python"
max_batch_size: 64
input [ {tensor("x")} ]
output [ {tensor("y")} ]
dynamic_batching {{ }}
instance_group [ {{ kind: KIND_CPU count: 1 }} ]
parameters [ {parameter("onnx", workload.file)}, {parameter("servers", SERVERS)} ]
"""


@contextmanager
def _running(command: list[str], folder: Path, environment: Mapping[str, str] | None = None) -> Iterator[None]:
    """A process with all that it starts, until the block ends; its output goes to server.log in the folder."""
    folder.mkdir(exist_ok=True)
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            cwd=folder,
            start_new_session=True,
            env={**os.environ, **ONE_THREAD, **(environment or {})},
        )
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)
