"""Spans and metrics to a collector by mutual TLS, and metrics that are read by mutual TLS."""

import logging
import socket
import urllib.request
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path

import pytest

from services.common.settings import ServiceSettings
from services.common.telemetry.instruments import GatewayInstruments
from services.common.telemetry.setup import Telemetry, start
from services.common.tls import Tls
from tests.support.certificates import Certificates, put
from tests.support.collector import Received, collecting
from tests.support.prometheus import prometheus
from tests.support.rotel import by_tls, rotel_collector
from tests.support.stack import wait_until

SERVER = "inference.GRPCInferenceService/ModelInfer"
VARIABLES = ("CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def received() -> Iterator[Received]:
    with collecting() as received:
        yield received


@pytest.fixture(scope="module")
def collector(
    received: Received, certificates: Certificates, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """nginx, which asks for certificates, before Rotel."""
    folder = tmp_path_factory.mktemp("collector")
    with rotel_collector(folder, received.endpoint) as plain, by_tls(folder, plain, certificates) as secured:
        yield secured


@pytest.fixture
def own(tmp_path: Path, certificates: Certificates) -> Certificates:
    """A process's own files, at first those of the collector's issuer."""
    mine = Certificates(tmp_path / "own")
    take(mine, certificates)
    return mine


def take(mine: Certificates, other: Certificates) -> None:
    for name in ("ca_file", "key", "cert"):
        put(getattr(mine, name), getattr(other, name).read_bytes())


def settings_of(mine: Certificates, **other: str) -> ServiceSettings:
    named = {"tls_cert": mine.cert, "tls_key": mine.key, "tls_ca": mine.ca_file, "tls_client_ca": mine.ca_file}
    return ServiceSettings.model_validate({key: str(value) for key, value in named.items()} | other)


def read(settings: ServiceSettings) -> Tls:
    tls = Tls(settings)
    tls.look()
    return tls


def one_request(telemetry: Telemetry) -> str:
    """The trace's id of a request that came and went."""
    trace = telemetry.begin_request("")
    assert trace is not None
    trace.end()
    return trace.trace_id


def arrived(received: Received, trace_id: str) -> bool:
    return any(span.trace_id.hex() == trace_id for span in received.named(SERVER))


def test_by_the_certificates_of_the_process_also_by_new_ones(
    received: Received, collector: str, certificates: Certificates, own: Certificates
) -> None:
    """Files of somebody else: nothing gets through, and the log says what to look at; with the right ones it does."""
    settings = settings_of(own, otlp=collector)
    tls = read(settings)
    with start("gateway", "g1", settings, tls) as telemetry:
        first = one_request(telemetry)
        wait_until(lambda: arrived(received, first), "the first span")
        take(own, Certificates(own.cert.parent / "stranger"))
        tls.look()
        handler = Told()
        logging.getLogger("services.common.telemetry.otlp").addHandler(handler)
        one_request(telemetry)
        wait_until(lambda: bool(handler.lines), "the advice")
        assert "HEADRACE_TLS_CA" in handler.lines[0]
        assert collector in handler.lines[0]
        take(own, certificates)
        tls.look()
        GatewayInstruments(telemetry.ledger).of("digits", 3).began()
        last = one_request(telemetry)
        wait_until(lambda: arrived(received, last), "a span by new certificates")
    wait_until(lambda: "headrace.requests.in_flight" in received.metrics, "metrics")


def test_by_opentelemetrys_variables(
    received: Received, collector: str, certificates: Certificates, own: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They come before the process's own, which are a stranger's here."""
    files = (certificates.ca_file, certificates.cert, certificates.key)
    for name, path in zip(VARIABLES, files, strict=True):
        monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{name}", str(path))
    take(own, Certificates(own.cert.parent / "stranger"))
    settings = settings_of(own, otlp=collector)
    with start("gateway", "g1", settings, read(settings)) as telemetry:
        trace_id = one_request(telemetry)
    wait_until(lambda: arrived(received, trace_id), "the span")


def test_without_issuers_the_log_says_what_to_set(collector: str, capfd: pytest.CaptureFixture[str]) -> None:
    with start("gateway", "g1", ServiceSettings(otlp=collector)) as telemetry:
        one_request(telemetry)
    said = capfd.readouterr().err
    assert "CERTIFICATE_VERIFY_FAILED" in said
    assert "OTEL_EXPORTER_OTLP_CERTIFICATE (or HEADRACE_TLS_CA)" in said


def test_metrics_are_read_by_tls_with_a_certificate_only(
    own: Certificates, certificates: Certificates, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = settings_of(own, metrics="127.0.0.1:0")
    tls = read(settings)
    with start("worker", "w1", settings, tls) as telemetry:
        address = telemetry.metrics_address
        host, port = address.split(":")
        with socket.create_connection((host, int(port))):  # says nothing, and holds up nobody
            assert "process_memory_usage_bytes" in scraped(address, certificates)
        for known in (False, None):
            with pytest.raises((OSError, HTTPException)):
                scraped(address, certificates, known=known)
        wait_until(lambda: "HEADRACE_TLS_CLIENT_CA" in capfd.readouterr().err, "the log to say why")
        other = Certificates(own.cert.parent / "other")
        take(own, other)
        tls.look()
        assert "process_memory_usage_bytes" in scraped(address, other)
        assert other.presented(address) == other.serial
        with pytest.raises((OSError, HTTPException)):
            scraped(address, certificates)


def test_a_certificate_alone_asks_nobody_for_one(own: Certificates, certificates: Certificates) -> None:
    settings = settings_of(own, metrics="127.0.0.1:0", tls_client_ca="")
    with start("worker", "w1", settings, read(settings)) as telemetry:
        assert "process_memory_usage_bytes" in scraped(telemetry.metrics_address, certificates, known=False)


def test_prometheus_reads_by_mutual_tls(own: Certificates, certificates: Certificates, tmp_path: Path) -> None:
    settings = settings_of(own, metrics="127.0.0.1:0")
    with (
        start("worker", "w1", settings, read(settings)) as telemetry,
        prometheus(tmp_path, {"workers": [telemetry.metrics_address]}, certificates) as reader,
    ):
        wait_until(lambda: bool(reader.query("up == 1")), "a scrape", 60)
        assert reader.query("process_memory_usage_bytes")


class Told(logging.Handler):
    """What was logged."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def scraped(address: str, certificates: Certificates, *, known: bool | None = True) -> str:
    """The page; `known`: with a certificate, without one, or (None) in plain text."""
    context = None if known is None else certificates.context(known=known)
    url = f"{'http' if known is None else 'https'}://{address}/metrics"
    with urllib.request.urlopen(url, timeout=20, context=context) as response:
        return str(response.read(), "utf-8")
