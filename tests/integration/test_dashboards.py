"""Dashboards and alerts ask for nothing that no process exports, and say what they mean to say."""

import json
import re
import runpy
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from services.autoscaler.observation import ScalingObserver
from services.autoscaler.policy.config import Limits
from services.autoscaler.policy.observation import Decision, Observation
from services.autoscaler.signals.views import Picture, QueueDepth, QueueKey, QueueView, WorkerView
from services.autoscaler.signals.workers import Phase
from services.common.settings import ServiceSettings
from services.common.telemetry.generations import EngineSeries, GenerationInstruments
from services.common.telemetry.instruments import GatewayInstruments, WorkerInstruments
from services.common.telemetry.ledger import Ledger
from services.common.telemetry.setup import start
from tests.support.promql import OBSERVABILITY, Query, needs, queries

ROOT = Path(__file__).resolve().parents[2]
# What Prometheus adds to what it reads.
ADDED = {"job", "instance", "le"}
OF_PROMETHEUS = {"up": set[str]()}
SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? ")
LABEL = re.compile(r'(\w+)="')
Exported = dict[str, set[str]]


@pytest.fixture(scope="module")
def exported() -> Iterator[Exported]:
    """Metric → labels, from the page of a process in which everything has happened once."""
    with start("everything", "1", ServiceSettings(metrics="127.0.0.1:0")) as telemetry:
        _serve(telemetry.ledger)
        _generate(telemetry.ledger)
        _scale(ScalingObserver(telemetry.ledger))
        yield labels_by_metric(scrape(telemetry.metrics_address)) | OF_PROMETHEUS


def _serve(ledger: Ledger) -> None:
    gateway = GatewayInstruments(ledger)
    gateway.of("digits", 3).began()
    gateway.of("digits", 3).finished(0, 0.004)
    gateway.shadow("digits", 4, "matched")
    worker = WorkerInstruments(ledger).of("digits", 3)
    worker.batch(8, 0.003)
    worker.waited(0.001, 0.0)


def _generate(ledger: Ledger) -> None:
    generations = GenerationInstruments(ledger).of("words", 1)
    generations.began(0.1)
    generations.ended(1.0, 0.1, 5, 10)
    names = ("running", "waiting", "kv_blocks_used", "kv_blocks_total")
    counts = ("prefix_tokens_hit", "prefix_tokens_asked", "preemptions")
    stats = SimpleNamespace(**dict.fromkeys((*names, *counts), 1))
    EngineSeries(ledger, "words", 1, lambda: stats).step()


def _scale(observer: ScalingObserver) -> None:
    queue = QueueView(QueueKey("digits", 3), 7, QueueDepth(5, 2), 2, 1.0, 1.0, 0.1, 4.0)
    observer.saw(Picture(Observation(ready=1), (queue,), (WorkerView("w", Phase.READY),)))
    observer.decided(Decision(3, "load calls for 2.1", 2.1), 1, Limits(0, 4), active=True)


def scrape(address: str) -> str:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as response:
        return str(response.read(), "utf-8")


def labels_by_metric(page: str) -> Exported:
    found: Exported = {}
    for match in filter(None, map(SAMPLE.match, page.splitlines())):
        found.setdefault(match[1], set()).update(LABEL.findall(match[2] or ""))
    return found


@pytest.mark.parametrize("query", queries(), ids=str)
def test_a_query_names_metrics_and_labels_that_are_exported(query: Query, exported: Exported) -> None:
    needed = needs(query)
    assert needed.selected
    for metric, labels in needed.selected.items():
        assert metric in exported, f"nothing exports {metric}"
        assert labels <= exported[metric] | ADDED, f"{metric} has no {labels - exported[metric] - ADDED}"
        assert needed.grouped <= exported[metric] | ADDED, (
            f"{metric} has no {needed.grouped - exported[metric] - ADDED}"
        )


def test_what_nothing_exports_is_found_out(exported: Exported) -> None:
    """The test above is one that can fail."""
    for wrong in ("rate(headrace_requests[1m])", "sum by (model) (headrace_requests_total)"):
        with pytest.raises(AssertionError):
            test_a_query_names_metrics_and_labels_that_are_exported(Query("wrong", wrong), exported)


def test_legends_name_labels_that_their_query_keeps() -> None:
    """Grafana shows an empty name where a label was summed away."""
    for board in yaml.safe_load((OBSERVABILITY / "dashboards.yaml").read_text()):
        for panel in board["panels"]:
            for legend, expression in panel["queries"].items():
                kept = needs(Query("", expression.replace("$__rate_interval", "1m"))).grouped
                assert set(re.findall(r"{{(\w+)}}", legend)) <= kept, (panel["title"], legend)


def test_generated_files_are_what_the_sources_make() -> None:
    made: dict[Path, str] = runpy.run_path(str(ROOT / "tools" / "generate_dashboards.py"))["generated"]()
    for path, content in made.items():
        assert path.read_text() == content, f"{path.name} is old: run python tools/generate_dashboards.py"
    assert {path for path in made if path.suffix == ".json"} == set(
        (OBSERVABILITY / "grafana" / "dashboards").iterdir()
    )


def test_prometheus_accepts_the_configuration_and_the_alerts_fire_when_they_should() -> None:
    for command in (["check", "config", "prometheus.yml"], ["test", "rules", "alerts_test.yaml"]):
        done = subprocess.run(["promtool", *command], cwd=OBSERVABILITY, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_trouble_that_raises_it() -> None:
    alerts = {query.where for query in queries() if query.where.startswith("Headrace")}
    troubles = yaml.safe_load((OBSERVABILITY / "alerts_test.yaml").read_text())["tests"]
    assert {name for name in alerts if f'alertname="{name}"' in json.dumps(troubles).replace("\\", "")} == alerts


def test_a_queue_that_is_gone_is_exported_no_more() -> None:
    ledger = Ledger()
    observer = ScalingObserver(ledger)
    _scale(observer)
    assert any(family.name == "headrace.queue.backlog" for family in ledger.families())
    observer.saw(Picture(Observation(), (), ()))
    assert not any(family.name.startswith("headrace.queue") for family in ledger.families())
