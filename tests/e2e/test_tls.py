"""The whole stack over mutual TLS, on both fronts; certificates that change while it serves."""

import asyncio
import json
import signal
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from typer.testing import CliRunner

from headrace import AsyncClient, Client
from headrace.cli.main import app
from headrace.client.jobs import ENDED, JobsClient
from headrace.client.registry import RegistryClient
from headrace.client.tls import Tls, open_channel
from tests.e2e.conftest import FRONTS, ready
from tests.support import models
from tests.support.certificates import Certificates, put
from tests.support.collector import Received, collecting
from tests.support.load import steady_load
from tests.support.openai_server import openai_server, text_of
from tests.support.rotel import by_tls
from tests.support.stack import RunningStack, descendants, running_stack, wait_until
from tests.support.stores import CREDENTIALS, rclone_s3

ROW = {"x": np.zeros((1, 16), np.float32)}
MOST_BYTES = 4 * 2**20
SERVERS = ("gateway", "registry", "broker", "worker-1", "jobs", "autoscaler")


@dataclass(frozen=True, slots=True)
class Secured:
    """A stack whose processes ask each other for certificates."""

    stack: RunningStack
    certificates: Certificates
    received: Received

    def client(self) -> Client:
        return Client(self.stack.address("gateway"), tls=self.certificates.client())


@pytest.fixture(scope="module", params=FRONTS)
def secured(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp(f"tls-{request.param}")
    certificates = Certificates(folder / "tls")
    environment = certificates.environment() | {
        **CREDENTIALS,
        "HEADRACE_TLS_STORE_CA": str(certificates.ca_file),
        "HEADRACE_INLINE_BYTES": "1024",
        "HEADRACE_MAX_REQUEST_BYTES": str(MOST_BYTES),
    }
    with (
        rclone_s3(folder / "s3", certificates) as s3,
        collecting() as received,
        by_tls(folder, received.endpoint, certificates) as collector,
        running_stack(
            folder / "data",
            workers="1..2",
            front=request.param,
            broker="embedded://",
            store=s3.url,
            environment=environment | {"HEADRACE_OTLP": collector},
        ) as running,
    ):
        with RegistryClient(running.address("registry"), tls=certificates.client()) as registry:
            registry.push("add_one", models.add_one(folder / "add_one.onnx"))
        with Client(running.address("gateway"), tls=certificates.client()) as client:
            wait_until(lambda: ready(client, "add_one"), "the model")
        yield Secured(running, certificates, received)


async def test_everything_works_with_certificates(secured: Secured, tmp_path: Path) -> None:
    """Requests, tokens, jobs and HTTP: each goes through several processes, by TLS between any two."""
    tls = secured.certificates.client()
    with secured.client() as client:
        assert client.infer("add_one", ROW).outputs["y"].tolist() == [[1.0] * 16]
        assert {model.name for model in client.status().models} >= {"add_one"}
    async with AsyncClient(secured.stack.address("gateway"), tls=tls) as asking:
        assert (await asking.infer("add_one", ROW)).outputs["y"].tolist() == [[1.0] * 16]
    line = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 16], "data": [1.0] * 16}]}
    with JobsClient(secured.stack.address("jobs"), tls=tls) as jobs:
        job = jobs.submit([json.dumps(line).encode() + b"\n"], endpoint="/v2/models/add_one/infer")
        wait_until(lambda: jobs.get(job.id).state in ENDED, "the job")
        assert (jobs.get(job.id).completed, jobs.get(job.id).failed) == (1, 0)
    # The gateway asks the job service, and the worker fetches what stays at the gateway.
    with get(secured, "/v1/files") as answer:
        assert answer.status == 200
    large = {"x": np.ones((64, 16), np.float32)}
    with secured.client() as client:
        assert (client.infer("add_one", large).outputs["y"] == 2).all()
    command = ["scale", "--json", "--autoscaler", secured.stack.address("autoscaler")]
    # The runner puts back what it was told of: the options go into the environment.
    untouched = dict.fromkeys(f"HEADRACE_TLS_{which}" for which in ("CA", "CERT", "KEY", "CLIENT_CA", "NAME"))
    said = CliRunner().invoke(app, [*options(tls), *command], env=untouched)
    assert json.loads(said.stdout)["max_workers"] == 2


def test_tokens_come_through(secured: Secured, tmp_path: Path) -> None:
    with openai_server(0.001) as server:
        (tmp_path / "model.yaml").write_text(f"runtime: openai\nopenai: {{base_url: '{server}', model: words}}\n")
        with RegistryClient(secured.stack.address("registry"), tls=secured.certificates.client()) as registry:
            registry.push("words", tmp_path)
        with secured.client() as client:
            wait_until(lambda: ready(client, "words"), "the model")
            pieces = list(client.stream("words", "hello", max_tokens=5, temperature=0))
        assert len(pieces) > 1
        assert "".join(piece.text for piece in pieces) == text_of("hello", length=5)


@pytest.mark.parametrize("name", SERVERS)
def test_nobody_gets_in_without_a_certificate(secured: Secured, name: str) -> None:
    address = secured.stack.address(name)
    assert health(address, secured.certificates.client()) == grpc.StatusCode.OK
    assert health(address, secured.certificates.stranger()) == grpc.StatusCode.UNAVAILABLE
    with grpc.insecure_channel(address) as channel:
        assert status(channel) == grpc.StatusCode.UNAVAILABLE
    other = Certificates(secured.certificates.ca_file.parent / "other")
    impostor = Tls(ca=secured.certificates.ca_file, cert=other.cert, key=other.key)
    assert health(address, impostor) == grpc.StatusCode.UNAVAILABLE
    assert health(address, other.client()) == grpc.StatusCode.UNAVAILABLE


def test_nobody_gets_in_over_http_without_a_certificate(secured: Secured) -> None:
    with get(secured, "/v2/health/ready") as answer:
        assert answer.status == 200
    # How a refused handshake looks depends on who is quicker to close; that nothing is answered does not.
    with pytest.raises((OSError, HTTPException)) as refused, get(secured, "/v2", known=False) as answer:
        answer.read()
    assert not isinstance(refused.value, HTTPError)
    with pytest.raises((OSError, HTTPException)) as refused:
        urllib.request.urlopen(f"http://{secured.stack.http()}/v2", timeout=10).close()
    assert not isinstance(refused.value, HTTPError)


@pytest.mark.parametrize("name", ["gateway", "registry", "broker", "jobs"])
def test_a_compressed_message_is_not_expanded_past_the_limit(secured: Secured, name: str) -> None:
    """128 kB that would become 128 MiB."""
    tls, own = secured.certificates.client(), secured.stack.pid(name)
    with open_channel(secured.stack.address(name), tls, [("grpc.max_send_message_length", -1)]) as channel:
        before = peak_bytes(own)
        call: Any = channel.unary_unary("/grpc.health.v1.Health/Check")
        with pytest.raises(grpc.RpcError) as refused:
            call(bytes(128 * 2**20), timeout=60, compression=grpc.Compression.Gzip)
    assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert peak_bytes(own) - before < 110 * 2**20


def test_a_body_over_the_limit_is_refused(secured: Secured) -> None:
    url = f"https://{secured.stack.http()}/v2/models/add_one/infer"
    request = urllib.request.Request(url, b" " * (MOST_BYTES + 1), {"content-type": "application/json"})
    with pytest.raises(HTTPError, match="413") as refused:
        urllib.request.urlopen(request, timeout=30, context=secured.certificates.context())
    with refused.value as answer:
        assert f"over the limit of {MOST_BYTES} bytes" in json.load(answer)["error"]


@pytest.mark.parametrize("name", SERVERS)
def test_metrics_are_read_with_a_certificate_only(secured: Secured, name: str) -> None:
    url = f"https://{secured.stack.metrics(name)}/metrics"
    with urllib.request.urlopen(url, timeout=30, context=secured.certificates.context()) as answer:
        assert b"process_memory_usage_bytes" in answer.read()
    with pytest.raises((OSError, HTTPException)):
        urllib.request.urlopen(url, timeout=30, context=secured.certificates.context(known=False)).close()


def test_traces_arrive(secured: Secured) -> None:
    """Of the gateway and of the worker, which is told of them by the request."""
    with secured.client() as client:
        client.infer("add_one", ROW)
    wait_until(lambda: bool(secured.received.named("batch add_one")), "the worker's span")
    wait_until(lambda: bool(secured.received.named("publish headrace.add_one.1")), "the gateway's span")


async def test_new_certificates_come_into_use_under_load_without_a_failed_request(secured: Secured) -> None:
    certificates, stack = secured.certificates, secured.stack
    addresses = [*(stack.address(name) for name in SERVERS), *(stack.metrics(name) for name in SERVERS), stack.http()]
    async with steady_load(stack.address("gateway"), retries=False, tls=certificates.client()) as count:
        await count.answered(200)
        before = certificates.serial
        after = certificates.renew()
        assert before != after
        for address in addresses:
            renewed = partial(lambda where: certificates.presented(where) == after, address)
            await asyncio.to_thread(wait_until, renewed, f"{address} to renew")
        await count.answered(200)
    assert not count.errors
    assert count.wrong == 0
    assert count.balanced()
    # Connections that are made anew show the new ones, too.
    stack.signal("broker", signal.SIGKILL)
    with secured.client() as client:
        wait_until(lambda: ready(client, "add_one"), "the broker to be back")
        assert client.infer("add_one", ROW, timeout=30).outputs["y"].tolist() == [[1.0] * 16]


def test_wrong_files_change_nothing_and_are_told_of(secured: Secured) -> None:
    certificates, stack = secured.certificates, secured.stack
    good = certificates.key.read_bytes()
    other = Certificates(certificates.ca_file.parent / "wrong")
    put(certificates.key, other.key.read_bytes())
    for name in SERVERS:
        wait_until(lambda name=name: "is not the key of the certificate" in stack.log(name), f"{name} to tell")  # type: ignore[misc]
    put(certificates.key, good)
    assert {certificates.presented(stack.address(name)) for name in SERVERS} == {certificates.serial}


def options(tls: Tls) -> list[str]:
    """Before a command of `headrace`."""
    return ["--tls-ca", str(tls.ca), "--tls-cert", str(tls.cert), "--tls-key", str(tls.key)]


def get(secured: Secured, path: str, *, known: bool = True) -> "urllib.request._UrlopenRet":
    context = secured.certificates.context(known=known)
    return urllib.request.urlopen(f"https://{secured.stack.http()}{path}", timeout=30, context=context)


def peak_bytes(pid: int) -> int:
    """The most memory that a process had, or one that it started: Envoy, for one."""
    status = [Path(f"/proc/{each}/status").read_text() for each in (pid, *descendants(pid))]
    return max(int(text.split("VmHWM:")[1].split()[0]) * 1024 for text in status)


def health(address: str, tls: Tls) -> grpc.StatusCode:
    with open_channel(address, tls, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        return status(channel)


def status(channel: grpc.Channel) -> grpc.StatusCode:
    try:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        stub.Check(health_pb2.HealthCheckRequest(), timeout=10)
    except grpc.RpcError as error:
        code: grpc.StatusCode = error.code()
        return code
    return grpc.StatusCode.OK
