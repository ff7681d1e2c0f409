"""The local stack: which processes `headrace up` runs, and how they find each other."""

import asyncio
import json
import os
import secrets
import signal
import socket
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from headrace.cli.pool import WorkerPool
from headrace.cli.ports import free_port
from headrace.cli.supervisor import Child, StartError

# The embedded broker in a process of its own.
APART = "embedded://"


@dataclass(frozen=True, slots=True)
class StackOptions:
    """What `headrace up` was asked for; ports may be 0 for any free one.

    Attributes:
        metrics_port: the gateway's Prometheus endpoint; the other processes take free ports, told in stack.json.
        broker, store: URLs; empty: the embedded broker, a folder below `data`. That broker lives in the gateway; with
            several gateways, or as `embedded://`, it is a process of its own.
        workers: how many at the start, and the fewest.
        most_workers: an autoscaler adds as many as are needed, up to this; 0: none, `workers` it is.
        worker_memory: what models may take in each worker; empty: no limit.
        environment: further HEADRACE_* variables, for every process.
    """

    data: Path
    workers: int = 1
    most_workers: int = 0
    gateways: int = 1
    host: str = "127.0.0.1"
    port: int = 8001
    metrics_port: int = 8002
    http_port: int = 8000
    registry_port: int = 8003
    broker_port: int = 8004
    autoscaler_port: int = 8005
    jobs_port: int = 8006
    front: str = "auto"
    broker: str = ""
    store: str = ""
    worker_memory: str = ""
    environment: dict[str, str] = field(default_factory=dict)


class Stack:
    """The processes of one machine. `run` starts them, keeps them up, and stops them in order.

    Args:
        say: called with each line that a person should read.
    """

    def __init__(self, options: StackOptions, say: Callable[[str], None]) -> None:
        self._options = options
        self._say = say
        self._fixed: list[Child] = []
        self._shared: dict[str, str] = {}
        self._autoscaler = self._jobs = ""
        # With one gateway the embedded broker lives in it; workers show this.
        self._broker_token = secrets.token_urlsafe(24)
        self._workers = WorkerPool(self._make_worker, self._keep, self._write_state, say)
        self._metrics: dict[str, str] = {}
        self.started = asyncio.Event()

    def address(self, name: str) -> str:
        """host:port of a process, once the stack has started."""
        return next(child.address for child in self._children if child.name == name)

    @property
    def _children(self) -> list[Child]:
        return [*self._fixed, *self._workers.children]

    async def run(self, stop: asyncio.Event | None = None) -> None:
        """Returns after SIGINT or SIGTERM, with everything drained. Raises StartError."""
        stop = stop or _stop_on_signals()
        async with self._workers.serving() as supervisor:
            try:
                await self._start(supervisor)
                self._announce()
                self.started.set()
                await stop.wait()
                self._say("draining …")
            finally:
                await self._stop()

    async def _start(self, supervisor: str) -> None:
        options = self._options
        for folder in ("logs", "store", "cache"):
            (options.data / folder).mkdir(parents=True, exist_ok=True)
        broker = options.broker
        if broker == APART or (not broker and options.gateways > 1):
            listen = {"LISTEN": self._listen(options.broker_port)}
            child = await self._begin("broker", "services.broker", listen, f"{options.host}:0")
            broker = f"{APART}{child.address}"
        store = options.store or (options.data / "store").resolve().as_uri()
        settings = {"LISTEN": self._listen(options.registry_port), "STORE": store}
        registry = await self._begin("registry", "services.registry", settings, f"{options.host}:0")
        self._shared = {"BROKER": broker, "REGISTRY": registry.address}
        if options.most_workers:
            self._autoscaler = _with_port(self._listen(options.autoscaler_port))
        # Gateways and job service know each other: one address must stand before either is there.
        self._jobs = _with_port(self._listen(options.jobs_port))
        for number in range(1, options.gateways + 1):
            gateway = await self._begin_gateway(number)
        if not broker:
            self._shared["BROKER"] = f"{APART}{self._broker_token}@{gateway.address}"
        await asyncio.gather(self._begin_jobs(store), self._begin_workers())
        if options.most_workers:
            await self._begin_autoscaler(supervisor, store)

    def _make_worker(self, name: str) -> Child:
        options = self._options
        cache = str((options.data / "cache").resolve())
        worker = {"WORKER_ID": name, "CACHE": cache, "LISTEN": f"{options.host}:0"}
        if options.worker_memory:
            worker["MEMORY_BUDGET"] = options.worker_memory
        return self._make(name, "services.worker", self._shared | worker, f"{options.host}:0")

    async def _begin_workers(self) -> None:
        for _ in range(self._options.workers):
            await self._workers.start()

    async def _begin_jobs(self, store: str) -> None:
        gateways = ",".join(child.http for child in self._fixed if child.module == "services.gateway")
        settings = {"STORE": store, "GATEWAYS": gateways, "LISTEN": self._jobs, "REGISTRY": self._shared["REGISTRY"]}
        await self._begin("jobs", "services.jobs", settings, f"{self._options.host}:0")

    async def _begin_autoscaler(self, supervisor: str, store: str) -> None:
        options = self._options
        settings = self._shared | {"STORE": store, "ORCHESTRATOR": f"processes://{supervisor}"}
        settings |= {"MIN_WORKERS": str(options.workers), "MAX_WORKERS": str(options.most_workers)}
        settings["LISTEN"] = self._autoscaler
        await self._begin("autoscaler", "services.autoscaler", settings, f"{options.host}:0")

    async def _begin_gateway(self, number: int) -> Child:
        """The first takes the ports that were asked for and is just `gateway`; further ones take free ports."""
        options, first = self._options, number == 1
        settings = self._shared | {"FRONT": options.front, "LISTEN": self._listen(options.port if first else 0)}
        settings |= {"AUTOSCALER": self._autoscaler, "JOBS": self._jobs}
        settings["HTTP_LISTEN"] = _with_port(f"{options.host}:{options.http_port if first else 0}")
        if not self._shared["BROKER"]:
            settings["BROKER_TOKEN"] = self._broker_token
        metrics = self._listen(options.metrics_port if first else 0)
        return await self._begin("gateway" if first else f"gateway-{number}", "services.gateway", settings, metrics)

    def _make(self, name: str, module: str, settings: dict[str, str], metrics: str) -> Child:
        settings["METRICS"] = self._metrics[name] = _with_port(metrics)
        environment = {f"HEADRACE_{key}": value for key, value in settings.items()} | self._options.environment
        return Child(name, module, environment, self._options.data / "logs" / f"{name}.log")

    async def _begin(self, name: str, module: str, settings: dict[str, str], metrics: str) -> Child:
        child = self._make(name, module, settings, metrics)
        self._fixed.append(child)
        await child.start()
        self._keep(child)
        return child

    def _keep(self, child: Child) -> None:
        # A child that is started again must come back where the others look for it.
        if "HEADRACE_LISTEN" in child.environment:
            child.environment["HEADRACE_LISTEN"] = child.address
        child.task = asyncio.create_task(child.keep(self._crashed, self._write_state), name=f"keep {child.name}")

    def _crashed(self, child: Child, code: int) -> None:
        self._say(f"[red]{child.name} ended with status {code}[/red]; starting it again (log: {child.log})")

    def _write_state(self) -> None:
        """Where everything is, for people and tests."""
        children = {
            child.name: {
                "address": child.address,
                "http": child.http,
                "pid": child.process.pid if child.process else 0,
                "metrics": self._metrics[child.name],
            }
            for child in self._children
        }
        path = self._options.data / "stack.json"
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(children, indent=2))
        partial.replace(path)

    def _announce(self) -> None:
        self._write_state()
        scheme = "https" if os.environ.get("HEADRACE_TLS_CERT") else "http"
        for child in self._children:
            http = f"   {scheme}://{child.http}/console" if child.http else ""
            metrics = f"   metrics {scheme}://{self._metrics[child.name]}/metrics"
            self._say(f"  [bold]{child.name:10}[/bold] {child.address:21}{metrics}{http}")
        if apart := [child.http for child in self._children if child.http not in ("", child.address)]:
            self._say(
                f"  the grpc front has a port of its own for HTTP (REST, OpenAI's API, console): {', '.join(apart)}"
            )
        self._say(f"  data in {self._options.data}, logs in {self._options.data / 'logs'}")
        self._say("ready; push a model with: headrace push NAME PATH   (Ctrl-C drains and stops)")

    async def _stop(self) -> None:
        """Callers first, so that nothing is accepted which nobody will run."""
        await self._stop_all("autoscaler", "jobs")
        await self._stop_all("gateway")
        await self._workers.stop()
        await self._stop_all("registry", "broker")

    async def _stop_all(self, *names: str) -> None:
        await asyncio.gather(*(child.stop() for child in self._fixed if child.name.startswith(names)))

    def _listen(self, port: int) -> str:
        """host:port, after a look whether it is free. Raises StartError."""
        host = self._options.host
        if port:
            with closing(socket.socket()) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((host, port))
                except OSError as error:
                    raise StartError(
                        f"port {port} on {host} cannot be used ({error.strerror}); is another stack up? Choose other"
                        " ports with --port, --metrics-port, --registry-port, --broker-port, --autoscaler-port and"
                        " --jobs-port"
                    ) from error
        return f"{host}:{port}"


def _with_port(listen: str) -> str:
    """The same address with a free port where it has 0: a child that is started again must keep it."""
    host, _, port = listen.rpartition(":")
    return listen if int(port) else f"{host}:{free_port(host)}"


def _stop_on_signals() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    return stop
