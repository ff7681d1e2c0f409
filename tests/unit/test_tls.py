"""Certificates from files: what is refused at the start, what happens when they change, and that connections follow."""

import asyncio
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from headrace.client.errors import InvalidArgumentError
from headrace.client.tls import Tls as ClientTls
from services.common.errors import InvalidArgument
from services.common.rpc import channel, serving
from services.common.settings import ServiceSettings
from services.common.tls import latest_context, open_tls
from tests.support.certificates import Certificates, put

PASSWORD_KEY = b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIHeMEkGCSqGSIb3DQEFDTA8\n-----END ENCRYPTED PRIVATE KEY-----\n"


@pytest.fixture
def files(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path)


def settings(files: Certificates, **other: str) -> ServiceSettings:
    """Mutual TLS by these files."""
    named = {"tls_cert": files.cert, "tls_key": files.key, "tls_ca": files.ca_file, "tls_client_ca": files.ca_file}
    return ServiceSettings.model_validate({key: str(value) for key, value in named.items()} | other)


def another_key(files: Certificates) -> None:
    put(files.key, Certificates(files.key.parent / "other").key.read_bytes())


@pytest.mark.parametrize(
    ("spoil", "other", "message"),
    [
        (lambda files: files.cert.unlink(), {}, r"cannot read .*own\.pem: No such file"),
        (lambda files: put(files.cert, b"words"), {}, r"own\.pem holds no certificates in PEM"),
        (lambda files: put(files.ca_file, b""), {}, r"ca\.pem holds no certificates in PEM"),
        (lambda files: put(files.key, b"words"), {}, r"own\.key holds no private key in PEM without a password"),
        (lambda files: put(files.key, PASSWORD_KEY), {}, r"own\.key holds no private key in PEM without a password"),
        (another_key, {}, r"own\.key is not the key of the certificate in .*own\.pem"),
        (lambda files: files.renew(days=-1), {}, r"own\.pem: the certificate expired at 20"),
        (lambda files: None, {"tls_store_ca": "/nowhere.pem"}, r"cannot read /nowhere\.pem: No such file"),
        (lambda files: None, {"tls_key": ""}, "HEADRACE_TLS_CERT and HEADRACE_TLS_KEY go together"),
        (lambda files: None, {"tls_cert": "", "tls_key": ""}, "HEADRACE_TLS_CERT must be set, too"),
    ],
)
async def test_files_that_are_wrong_keep_a_process_from_starting(
    files: Certificates, spoil: Callable[[Certificates], object], other: dict[str, str], message: str
) -> None:
    spoil(files)
    with pytest.raises(InvalidArgument, match=message):
        async with open_tls(settings(files, **other)):
            pytest.fail("it started")


async def test_without_files_there_is_no_tls() -> None:
    async with open_tls(ServiceSettings()) as tls:
        assert tls is None


def test_a_process_says_what_is_wrong_and_ends(files: Certificates) -> None:
    files.renew(days=-1)
    environment = files.environment() | {"HEADRACE_LISTEN": "127.0.0.1:0"}
    ended = subprocess.run(
        [sys.executable, "-m", "services.broker"],
        capture_output=True,
        text=True,
        env=environment,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1
    assert ended.stderr.strip().splitlines()[-1].startswith("broker: ")
    assert "the certificate expired at" in ended.stderr


async def test_what_is_wrong_later_changes_nothing_and_is_told_once(
    files: Certificates, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.common.tls.LOOK_SECONDS", 0.01)
    async with open_tls(settings(files)) as tls:
        assert tls is not None
        before, revision = tls.now, tls.revision
        another_key(files)
        await until(lambda: "is not the key" in caplog.text)
        await asyncio.sleep(0.1)  # in which it could tell again, ten times
        assert caplog.text.count("is not the key") == 1
        assert (tls.now, tls.revision) == (before, revision)
        files.renew()
        await until(lambda: tls.revision == revision + 1)
        assert tls.now.chain == files.cert.read_bytes()


async def test_connections_follow_to_another_issuer(files: Certificates, tmp_path: Path) -> None:
    """Server and client change all their files: later calls go by the new ones, the stream from before goes on."""
    async with (
        open_tls(settings(files)) as tls,
        serving("127.0.0.1:0", ["watched"], lambda server: None, tls=tls) as port,
        channel(f"127.0.0.1:{port}", tls) as connection,
    ):
        assert tls is not None
        stub: Any = health_pb2_grpc.HealthStub(connection)
        watched = stub.Watch(health_pb2.HealthCheckRequest(service="watched"))
        assert (await watched.read()).status == health_pb2.HealthCheckResponse.SERVING
        other = Certificates(tmp_path / "other")
        take(files, other)
        await until(lambda: tls.now.ca == other.ca_file.read_bytes())
        answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=30)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        assert await asyncio.to_thread(other.presented, f"127.0.0.1:{port}") == other.serial
        assert not watched.done()
        watched.cancel()


async def test_http_follows_to_another_issuer(files: Certificates, tmp_path: Path) -> None:
    """Of the grpc.aio front: certificates of the issuer that was taken out let nobody in, though the server goes on."""
    answered = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal answered
        answered += 1
        writer.write(b"hello")
        writer.close()

    async def ask(shown: Certificates, trusted: Certificates) -> bytes:
        context = ssl.create_default_context(cafile=trusted.ca_file)
        context.load_cert_chain(shown.cert, shown.key)
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        try:
            return await reader.read()
        finally:
            writer.close()

    old, new = Certificates(tmp_path / "old"), Certificates(tmp_path / "new")
    take(files, old)
    async with open_tls(settings(files)) as tls:
        assert tls is not None
        async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=latest_context(tls)) as server:
            port = server.sockets[0].getsockname()[1]
            assert await ask(old, old) == b"hello"
            take(files, new)
            await until(lambda: tls.now.ca == new.ca_file.read_bytes())
            assert await ask(new, new) == b"hello"
            with suppress(OSError):
                assert await ask(old, new) == b""
    assert answered == 2


def take(files: Certificates, other: Certificates) -> None:
    for mine, theirs in ((files.key, other.key), (files.cert, other.cert), (files.ca_file, other.ca_file)):
        put(mine, theirs.read_bytes())


async def test_a_name_may_stand_for_every_host(files: Certificates) -> None:
    files.renew("headrace.internal")
    async for port in served(files):
        for name, expected in (("headrace.internal", grpc.StatusCode.OK), ("", grpc.StatusCode.UNAVAILABLE)):
            async with (
                open_tls(settings(files, tls_name=name)) as tls,
                channel(f"127.0.0.1:{port}", tls) as connection,
            ):
                assert await status(connection) == expected


def test_a_client_says_what_is_wrong_with_its_files(files: Certificates) -> None:
    with pytest.raises(InvalidArgumentError, match="cannot read /nowhere"):
        ClientTls(ca="/nowhere").credentials()
    with pytest.raises(InvalidArgumentError, match="go together"):
        ClientTls(ca=files.ca_file, cert=files.cert).credentials()


async def served(files: Certificates) -> AsyncIterator[int]:
    async with open_tls(settings(files)) as tls, serving("127.0.0.1:0", [], lambda server: None, tls=tls) as port:
        yield port


async def status(connection: grpc.aio.Channel) -> grpc.StatusCode:
    try:
        stub: Any = health_pb2_grpc.HealthStub(connection)
        await stub.Check(health_pb2.HealthCheckRequest(), timeout=10)
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110  # files and logs signal nothing
            await asyncio.sleep(0.01)
