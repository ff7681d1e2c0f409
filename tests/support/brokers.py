"""Real broker processes for the tests: the embedded one and Debian's RabbitMQ, each of which can be killed and started
again on its port."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from headrace.cli.ports import free_port
from tests.support.certificates import Certificates
from tests.support.stack import wait_until

RABBITMQ_SCRIPTS = Path("/usr/lib/rabbitmq/bin")
START_SECONDS = 60.0


class BrokerProcess(ABC):
    """A broker on a fixed port of this machine."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port
        self._process: subprocess.Popen[bytes] | None = None

    @property
    @abstractmethod
    def url(self) -> str:
        """What HEADRACE_BROKER would be."""

    def url_through(self, port: int) -> str:
        """The URL by way of a proxy on another port."""
        return self.url.replace(f":{self.port}", f":{port}")

    def start(self) -> None:
        """Runs the process; returns when it serves."""
        log = (self.folder / "broker.log").open("ab")
        with log:
            self._process = subprocess.Popen(
                self._command(), env=self._environment(), stdout=log, stderr=log, start_new_session=True
            )
        process = self._process
        wait_until(lambda: self._serves() or process.poll() is not None, f"{self.url} to serve", START_SECONDS)
        assert process.poll() is None, f"{self.url} did not start:\n{(self.folder / 'broker.log').read_text()}"

    def kill(self) -> None:
        """kill -9, with all that the process started; returns when its port is free."""
        if self._process is not None:
            with suppress(ProcessLookupError):  # it may have left by itself
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(30)
            self._process = None
            wait_until(lambda: not self._accepts(), f"port {self.port} to be free")

    def stop(self) -> None:
        """SIGTERM, and the time it takes to leave in order."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(60)
        self.kill()

    def restart(self) -> None:
        """kill -9 and a fresh start on the same port."""
        self.kill()
        self.start()

    @abstractmethod
    def _command(self) -> list[str]: ...

    def _environment(self) -> dict[str, str]:
        return dict(os.environ)

    @abstractmethod
    def _serves(self) -> bool: ...

    def _accepts(self) -> bool:
        with socket.socket() as probe:
            probe.settimeout(1)
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


class EmbeddedProcess(BrokerProcess):
    """`python -m services.broker`."""

    @property
    def url(self) -> str:
        """Of the embedded adapter."""
        return f"embedded://127.0.0.1:{self.port}"

    def _command(self) -> list[str]:
        return [sys.executable, "-m", "services.broker"]

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "HEADRACE_LISTEN": f"127.0.0.1:{self.port}"}

    def _serves(self) -> bool:
        return self._accepts()


class RabbitProcess(BrokerProcess):
    """A RabbitMQ node of its own, with its data below `folder`: classic defaults, no plugins, one scheduler thread."""

    def __init__(
        self,
        folder: Path,
        port: int,
        epmd_port: int,
        distribution_port: int,
        certificates: Certificates | None = None,
    ) -> None:
        super().__init__(folder, port)
        self.secure_port = free_port() if certificates else 0
        self.epmd_port = epmd_port
        self._distribution_port = distribution_port
        (folder / "enabled_plugins").write_text("[].\n")
        (folder / "rabbitmq.conf").write_text("disk_free_limit.absolute = 50MB\nlog.console = true\n")
        (folder / "rabbitmq-env.conf").touch()
        if certificates is not None:
            with (folder / "rabbitmq.conf").open("a") as conf:
                conf.write(f"listeners.ssl.default = 127.0.0.1:{self.secure_port}\n")
                conf.write(f"ssl_options.cacertfile = {certificates.ca_file}\n")
                conf.write(f"ssl_options.certfile = {certificates.cert}\nssl_options.keyfile = {certificates.key}\n")
                conf.write("ssl_options.verify = verify_peer\nssl_options.fail_if_no_peer_cert = true\n")

    @property
    def url(self) -> str:
        """Of the RabbitMQ adapter."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}/"

    @property
    def secure_url(self) -> str:
        """By mutual TLS, where there are certificates."""
        return f"amqps://guest:guest@127.0.0.1:{self.secure_port}/"

    def _command(self) -> list[str]:
        return [str(RABBITMQ_SCRIPTS / "rabbitmq-server")]

    def _environment(self) -> dict[str, str]:
        folder = str(self.folder)
        return {
            "PATH": os.environ["PATH"],
            "HOME": folder,  # of the Erlang cookie
            "LANG": "C.UTF-8",
            "ERL_EPMD_PORT": str(self.epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"headrace{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._distribution_port),
            "RABBITMQ_MNESIA_BASE": f"{folder}/mnesia",
            "RABBITMQ_LOG_BASE": f"{folder}/log",
            "RABBITMQ_CONF_ENV_FILE": f"{folder}/rabbitmq-env.conf",
            "RABBITMQ_CONFIG_FILE": f"{folder}/rabbitmq.conf",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{folder}/enabled_plugins",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +sbwt none",
        }

    def _serves(self) -> bool:
        """Greets as AMQP 0-9-1: the port alone is open before the node takes clients."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as probe:
                probe.sendall(b"AMQP\x00\x00\x09\x01")
                return probe.recv(1) == b"\x01"
        except OSError:
            return False


@contextmanager
def embedded_broker(folder: Path) -> Iterator[EmbeddedProcess]:
    """An embedded broker until the block ends."""
    broker = EmbeddedProcess(folder, free_port())
    try:
        broker.start()
        yield broker
    finally:
        broker.kill()


@contextmanager
def rabbitmq_server(folder: Path, certificates: Certificates | None = None) -> Iterator[RabbitProcess]:
    """A RabbitMQ node until the block ends; fails where Debian's rabbitmq-server is not installed."""
    epmd = shutil.which("epmd")
    assert RABBITMQ_SCRIPTS.is_dir() and epmd, "RabbitMQ is missing: apt-get install rabbitmq-server"
    broker = RabbitProcess(folder, free_port(), free_port(), free_port(), certificates)
    # Our own port mapper: the one that Erlang starts by itself would outlive the tests.
    mapper = subprocess.Popen([epmd, "-port", str(broker.epmd_port), "-address", "127.0.0.1"])
    try:
        broker.start()
        yield broker
    finally:
        broker.kill()
        mapper.kill()
        mapper.wait(10)
