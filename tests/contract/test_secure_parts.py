"""RabbitMQ and S3 of others' making, by TLS."""

import asyncio
import hashlib
from pathlib import Path

import pytest

from headrace.v1.model_pb2 import ModelFile
from services.common.broker.connect import connect
from services.common.broker.port import Delivery, Message, QueueSpec
from services.common.errors import Unavailable
from services.common.objects.connect import one, open_store, whole
from services.common.settings import ServiceSettings
from services.common.tls import open_tls
from services.worker.cache import _fetch
from tests.support.brokers import rabbitmq_server
from tests.support.certificates import Certificates
from tests.support.stores import CREDENTIALS, rclone_s3


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


async def test_s3_by_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What docs/security.md says of variables: AWS_CA_BUNDLE for the registry, SSL_CERT_FILE for workers."""
    certificates = Certificates(tmp_path / "tls")
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    content = b"weights"
    digest = hashlib.sha256(content).hexdigest()
    with rclone_s3(tmp_path / "s3", certificates) as served:
        with pytest.raises(Unavailable, match=r"(?i)certificate"):
            await open_store(served.url)
        monkeypatch.setenv("AWS_CA_BUNDLE", str(certificates.ca_file))
        store = await open_store(served.url)
        await store.put("blob", one(content))
        assert await whole(store, "blob") == content
        url = await store.url("blob", 60)
        assert url.startswith("https://")
        file = ModelFile(path="blob", sha256=digest, size=len(content))
        with pytest.raises(Unavailable, match=r"(?i)certificate"):
            await asyncio.to_thread(_fetch, url, tmp_path / "copy", file, lambda size: None)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificates.ca_file))
        await asyncio.to_thread(_fetch, url, tmp_path / "copy", file, lambda size: None)
    assert (tmp_path / "copy").read_bytes() == content
