"""RabbitMQ and S3 of others' making, by TLS."""

import asyncio
import hashlib
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from headrace.v1.model_pb2 import ModelFile
from services.common.broker.connect import connect
from services.common.broker.port import Delivery, Message, QueueSpec
from services.common.errors import Unavailable
from services.common.objects.connect import one, open_store, whole
from services.common.objects.port import ObjectStore
from services.common.settings import ServiceSettings
from services.common.tls import open_tls
from services.worker.cache import fetch
from tests.support.brokers import rabbitmq_server
from tests.support.certificates import Certificates, put
from tests.support.stores import CREDENTIALS, rclone_s3

CONTENT = b"weights"


async def test_rabbitmq_by_mutual_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificates = Certificates(tmp_path / "tls")
    monkeypatch.setattr("services.common.broker.connect.PATIENCE_SECONDS", 60.0)
    with rabbitmq_server(tmp_path, certificates) as rabbit:
        said = {"tls_cert": certificates.cert, "tls_key": certificates.key, "tls_ca": certificates.ca_file}
        async with open_tls(ServiceSettings.model_validate({key: str(path) for key, path in said.items()})) as tls:
            broker = await connect(rabbit.secure_url, name="secured", tls=tls)
            came: asyncio.Queue[Delivery] = asyncio.Queue()
            await broker.declare(QueueSpec("secrets"))
            await broker.consume("secrets", came.put_nowait, prefetch=1)
            await broker.publish("secrets", Message(b"sealed"))
            delivery = await asyncio.wait_for(came.get(), 30)
            assert delivery.message.body == b"sealed"
            delivery.ack()
            await broker.close()
        # Whoever has no certificate is told in the handshake that he needs one.
        monkeypatch.setattr("services.common.broker.connect.PATIENCE_SECONDS", 2.0)
        async with open_tls(ServiceSettings(tls_ca=str(certificates.ca_file))) as tls:
            with pytest.raises(Unavailable):
                await connect(rabbit.secure_url, name="stranger", tls=tls)


@pytest.fixture
def store_certificates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Certificates:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    return Certificates(tmp_path / "tls")


async def test_s3_by_tls(tmp_path: Path, store_certificates: Certificates) -> None:
    """Registry, jobs and autoscaler go by boto3, workers by URLs that it signed: both believe the same file."""
    with rclone_s3(tmp_path / "s3", store_certificates) as served:
        stranger = Certificates(tmp_path / "stranger")
        believed = tmp_path / "believed.pem"
        put(believed, stranger.ca_file.read_bytes())
        async with open_tls(ServiceSettings(tls_store_ca=str(believed))) as tls:
            assert tls is not None
            for unknown in ("", str(believed)):
                with pytest.raises(Unavailable, match=r"certificate is refused.*HEADRACE_TLS_STORE_CA"):
                    await open_store(served.url, unknown)
            store = await open_store(served.url, str(store_certificates.ca_file))
            file = await put_blob(store)
            url = await store.url("blob", 60)
            assert url.startswith("https://")
            for known in (None, tls):
                with pytest.raises(Unavailable, match=r"(?i)certificate.*HEADRACE_TLS_STORE_CA"):
                    await asyncio.to_thread(fetch, url, tmp_path / "copy", file, lambda size: None, known)
            # Another file in the old one's place is used by the next fetch.
            put(believed, store_certificates.ca_file.read_bytes())
            assert tls.look()
            await asyncio.to_thread(fetch, url, tmp_path / "copy", file, lambda size: None, tls)
    assert (tmp_path / "copy").read_bytes() == CONTENT


async def test_boto3_takes_another_issuer_for_new_connections(tmp_path: Path, store_certificates: Certificates) -> None:
    believed = tmp_path / "believed.pem"
    put(believed, store_certificates.ca_file.read_bytes())
    with rclone_s3(tmp_path / "s3", store_certificates) as served:
        store = await open_store(served.url, str(believed))
        await put_blob(store)
    other = Certificates(tmp_path / "other")
    with rclone_s3(tmp_path / "s3", other, port=urlsplit(endpoint(served.url)).port or 0):
        with pytest.raises(Unavailable, match="HEADRACE_TLS_STORE_CA"):
            await whole(store, "blob")
        put(believed, other.ca_file.read_bytes())
        assert await whole(store, "blob") == CONTENT


async def test_issuers_that_others_tools_are_told_are_known_here(
    tmp_path: Path, store_certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a setting of ours boto3 and Python go by their own."""
    monkeypatch.setenv("AWS_CA_BUNDLE", str(store_certificates.ca_file))
    monkeypatch.setenv("SSL_CERT_FILE", str(store_certificates.ca_file))
    with rclone_s3(tmp_path / "s3", store_certificates) as served:
        store = await open_store(served.url)
        file = await put_blob(store)
        await asyncio.to_thread(fetch, await store.url("blob", 60), tmp_path / "copy", file, lambda size: None)
    assert (tmp_path / "copy").read_bytes() == CONTENT


async def put_blob(store: ObjectStore) -> ModelFile:
    await store.put("blob", one(CONTENT))
    return ModelFile(path="blob", sha256=hashlib.sha256(CONTENT).hexdigest(), size=len(CONTENT))


def endpoint(url: str) -> str:
    return parse_qs(urlsplit(url).query)["endpoint"][0]
