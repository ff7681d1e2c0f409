"""Images and Compose: every variable that a service is given is one that it reads, with a value that it takes."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.deployment import DEPLOY, SETTINGS, composed, stages, wrong_settings

COMPOSE = composed("compose.yaml")
GPU = composed("compose.yaml", "gpu.yaml")
TLS = composed("compose.yaml", "tls.yaml")
OURS = [name for name, service in COMPOSE["services"].items() if "build" in service]
# Of the SDKs in our images.
OTHERS = {"AWS_SHARED_CREDENTIALS_FILE", "DOCKER_HOST"}


@pytest.mark.parametrize("name", [name for name, stage in stages().items() if stage.service])
def test_an_image_sets_what_its_service_reads(name: str) -> None:
    assert wrong_settings(stages()[name].service, stages()[name].environment) == []


@pytest.mark.parametrize("name", OURS)
def test_compose_sets_what_the_service_reads(name: str) -> None:
    said = COMPOSE["services"][name]
    stage = stages()[said["build"]["target"]]
    given = {key: str(value) for key, value in said.get("environment", {}).items()}
    assert {key for key in given if not key.startswith("HEADRACE_")} <= OTHERS
    if stage.service:
        assert wrong_settings(stage.service, stage.environment | given) == []
    for secret in secrets(said):
        setting = secret.removeprefix("headrace_")
        assert not secret.startswith("headrace_") or setting in SETTINGS[stage.service].model_fields


def secrets(service: dict[str, Any]) -> list[str]:
    return [each if isinstance(each, str) else each["source"] for each in service.get("secrets", ())]


def test_what_no_service_reads_is_found_out() -> None:
    assert wrong_settings("gateway", {"HEADRACE_THREADS": "1"}) == ["HEADRACE_THREADS"]
    (error,) = wrong_settings("worker", {"HEADRACE_THREADS": "none"})
    assert "threads" in error


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_what_compose_mounts_is_there(name: str) -> None:
    service = COMPOSE["services"][name]
    for volume in service.get("volumes", ()):
        source = volume.split(":")[0]
        if source.startswith("."):
            assert (DEPLOY / "compose" / source).exists(), source
        elif not source.startswith("/"):
            assert source in COMPOSE["volumes"]
    made = (DEPLOY / "compose" / "secrets.sh").read_text()
    for secret in secrets(service):
        assert COMPOSE["secrets"][secret]["file"] in made, f"secrets.sh makes no {secret}"


def test_every_image_is_of_a_version() -> None:
    images = {service["image"] for service in COMPOSE["services"].values() if "build" not in service}
    assert {image for image in images if ":" not in image or image.endswith(":latest")} == set()


def test_every_system_has_its_parts() -> None:
    def parts(*profiles: str) -> set[str]:
        return {name for name, said in COMPOSE["services"].items() if set(said["profiles"]) & set(profiles)}

    base = {"balancer", "gateway", "rabbitmq", "minio", "registry"}
    assert parts("cluster") == base | {"worker"}
    assert parts("multi-model") == base | {"worker-multi-model"}
    assert parts("llm") == base | {"worker-llm"}
    assert parts("single") == {"single", "nginx", "minio", "registry"}
    for name in parts("cluster", "multi-model", "llm", "single"):
        for needed, how in dependencies(COMPOSE["services"][name]).items():
            assert set(COMPOSE["services"][name]["profiles"]) <= set(COMPOSE["services"][needed]["profiles"]) or not how


def dependencies(service: dict[str, Any]) -> dict[str, bool]:
    """What must run before it, and whether it must."""
    named = service.get("depends_on", {})
    return (
        dict.fromkeys(named, True)
        if isinstance(named, list)
        else {k: v.get("required", True) for k, v in named.items()}
    )


def test_the_gpu_file_turns_every_pool_of_workers_to_gpus() -> None:
    pools = {name for name, said in COMPOSE["services"].items() if name.startswith("worker")}
    for name in pools:
        assert GPU["services"][name]["build"]["target"] == "worker-cuda"
        (device,) = GPU["services"][name]["deploy"]["resources"]["reservations"]["devices"]
        assert device["driver"] == "nvidia"
    assert stages()["worker-cuda"].service == "worker"


@pytest.mark.parametrize("name", OURS)
def test_with_tls_every_service_has_a_certificate_of_its_own_and_goes_by_it(name: str) -> None:
    said = TLS["services"][name]
    stage = stages()[said["build"]["target"]]
    given = {key: value for key, value in said.get("environment", {}).items() if key.startswith("HEADRACE_TLS_")}
    folders = [volume.split(":")[0] for volume in said.get("volumes", ()) if ":/run/tls:" in volume]
    if not stage.service:
        assert given == {}
        return
    assert set(given) == {f"HEADRACE_TLS_{which}" for which in ("CA", "CERT", "KEY", "CLIENT_CA", "NAME", "STORE_CA")}
    assert wrong_settings(stage.service, given) == []
    assert folders == [f"./secrets/tls/{stage.service}"]
    assert stage.service in (DEPLOY / "compose" / "certificates.sh").read_text()


def test_with_tls_nothing_listens_in_plain_text() -> None:
    assert TLS["services"]["nginx"]["profiles"] == ["plain"]
    assert TLS["services"]["single"]["ports"] == ["127.0.0.1:8001:8001"]
    assert TLS["secrets"]["headrace_broker"]["file"] in (DEPLOY / "compose" / "secrets.sh").read_text()
    assert "listeners.tcp = none" in (DEPLOY / "compose" / "rabbitmq-tls.conf").read_text()
    stores = [
        said["environment"].get("HEADRACE_STORE", "") for said in TLS["services"].values() if "environment" in said
    ]
    assert {store.split("?")[1].split("&")[0] for store in stores if store} == {"endpoint=https://minio:9000"}


@pytest.mark.parametrize("name", ["minio", "collector", "prometheus", "rabbitmq"])
def test_with_tls_what_is_not_ours_has_a_certificate_too(name: str) -> None:
    volumes = [volume for volume in TLS["services"][name]["volumes"] if ":/run/tls:" in volume]
    assert volumes == [f"./secrets/tls/{name}:/run/tls:ro"]
    (made,) = re.findall(
        r"^for service in (.*); do$", (DEPLOY / "compose" / "certificates.sh").read_text(), re.MULTILINE
    )
    assert name in made.split()


def test_prometheus_with_tls_is_prometheus_and_tls() -> None:
    plain, secured = (
        yaml.safe_load((DEPLOY / "observability" / name).read_text())
        for name in ("prometheus.yml", "prometheus-tls.yml")
    )
    for scrape in secured["scrape_configs"]:
        if scrape["job_name"] != "rabbitmq":
            assert scrape.pop("scheme") == "https"
            assert (
                scrape.pop("tls_config")["server_name"] == TLS["services"]["worker"]["environment"]["HEADRACE_TLS_NAME"]
            )
    assert secured == plain
    assert "--config.file=/etc/headrace/prometheus-tls.yml" in TLS["services"]["prometheus"]["command"]


def test_the_balancer_with_tls_is_the_balancer_and_tls() -> None:
    plain, secured = (
        yaml.safe_load((DEPLOY / "envoy" / name).read_text()) for name in ("balancer.yaml", "tls/balancer.yaml")
    )
    del secured["node"]
    (chain,) = secured["static_resources"]["listeners"][0]["filter_chains"]
    (cluster,) = secured["static_resources"]["clusters"]
    assert chain.pop("transport_socket")["typed_config"]["require_client_certificate"] is True
    upstream = cluster.pop("transport_socket")["typed_config"]["common_tls_context"]["combined_validation_context"]
    assert upstream["default_validation_context"]["match_typed_subject_alt_names"]
    del cluster["health_checks"][0]["tls_options"]
    assert secured == plain


def test_prometheus_asks_every_service_of_compose() -> None:
    scrapes = yaml.safe_load((DEPLOY / "observability" / "prometheus.yml").read_text())["scrape_configs"]
    asked = {name for scrape in scrapes for source in scrape["dns_sd_configs"] for name in source["names"]}
    serving = {name for name in OURS if stages()[COMPOSE["services"][name]["build"]["target"]].service}
    assert serving <= asked <= set(COMPOSE["services"])


def test_docs_name_every_profile() -> None:
    text = Path(DEPLOY.parent / "docs" / "deployment.md").read_text()
    profiles = {profile for said in COMPOSE["services"].values() for profile in said["profiles"]}
    assert {profile for profile in profiles if f"`{profile}`" not in text} == set()
