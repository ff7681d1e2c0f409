"""Kubernetes' manifests, as `kubectl apply -k` sends them, against Kubernetes' own schemas and against each other."""

from typing import Any

import kubernetes_validate
import pytest
from cloudcoil.models.cert_manager.v1 import Certificate, Issuer
from cloudcoil.models.keda.v1alpha1 import ScaledObject
from cloudcoil.models.prometheus_operator.v1 import PodMonitor, PrometheusRule, ServiceMonitor

from services.autoscaler.orchestrators.kubernetes import Deployment
from tests.support.deployment import (
    DEPLOY,
    containers,
    environment,
    of_kind,
    rendered,
    stages,
    target,
    wrong_settings,
)
from tests.support.kubernetes import kubernetes_api

# Together they hold everything that deploy/kubernetes has.
OVERLAYS = ("overlays/tls", "overlays/keda")
# The oldest Kubernetes that the docs name, and the newest that the schemas know.
VERSIONS = ("1.29", "1.37")
# Models made of the custom resources' own definitions. RabbitmqCluster has none in a package; see docs/kubernetes.md.
CUSTOM = {
    each.__name__: each for each in (ScaledObject, ServiceMonitor, PodMonitor, PrometheusRule, Certificate, Issuer)
}
UNCHECKED = {"RabbitmqCluster"}
Objects = list[dict[str, Any]]


@pytest.fixture(scope="module", params=OVERLAYS)
def objects(request: pytest.FixtureRequest) -> Objects:
    return rendered(request.param)


def complaint(thing: dict[str, Any]) -> str:
    """What the schemas hold against an object; "": nothing."""
    if model := CUSTOM.get(thing["kind"]):
        try:
            kept = model.model_validate(thing).model_dump(mode="json", by_alias=True, exclude_unset=True)
        except ValueError as error:
            return str(error)
        return "" if kept == thing else f"unknown fields or values: {thing} is read as {kept}"
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(thing, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            return f"{version}: {error.message}"
    return ""


def test_every_object_fits_its_schema(objects: Objects) -> None:
    assert objects
    for thing in objects:
        if thing["kind"] not in UNCHECKED:
            assert complaint(thing) == "", (thing["kind"], thing["metadata"]["name"])


def test_the_overlays_hold_every_folder() -> None:
    """What no overlay takes, nothing above checks."""
    taken = (DEPLOY / "kubernetes" / "overlays").rglob("kustomization.yaml")
    text = "".join(path.read_text() for path in (*taken, DEPLOY / "kubernetes" / "base" / "kustomization.yaml"))
    folders = [*(DEPLOY / "kubernetes" / "components").iterdir(), *(DEPLOY / "kubernetes" / "pools").iterdir()]
    assert {folder.name for folder in folders if f"/{folder.name}\n" not in text} == {"worker"}


def test_what_does_not_fit_is_found_out() -> None:
    (gateway,) = [each for each in of_kind(rendered("base"), "Deployment") if each["metadata"]["name"] == "gateway"]
    gateway["spec"]["template"]["spec"]["containers"][0]["redinessProbe"] = {}
    assert "redinessProbe" in complaint(gateway)
    (scaled,) = of_kind(rendered("overlays/keda"), "ScaledObject")
    scaled["spec"]["maxReplicas"] = 3
    assert "maxReplicas" in complaint(scaled)


def test_every_variable_is_a_setting_of_its_service(objects: Objects) -> None:
    for _, container in containers(objects):
        stage = stages()[target(container["image"])]
        if stage.service:
            assert wrong_settings(stage.service, environment(container, objects)) == [], container["name"]


def test_secrets_are_files_of_settings(objects: Objects) -> None:
    for pod, container in containers(objects):
        volumes = {volume["name"]: volume for volume in pod.get("volumes", ())}
        for mount in container["volumeMounts"]:
            secret = volumes.get(mount["name"], {}).get("secret", {})
            if mount["name"] == "tls":
                continue
            for item in secret.get("items", ()):
                assert mount["mountPath"] == environment(container, objects)["HEADRACE_SECRETS"]
                service = stages()[target(container["image"])].service
                assert wrong_settings(service, {item["path"].upper(): "embedded://x"}) == []


def test_with_tls_every_process_has_the_files_that_its_settings_name_from_a_certificate_of_its_own() -> None:
    objects = rendered("overlays/tls")
    made = {each["spec"]["secretName"]: each["spec"] for each in of_kind(objects, "Certificate")}
    for each in of_kind(objects, "Deployment", "StatefulSet"):
        pod = each["spec"]["template"]
        component = pod["metadata"]["labels"]["app.kubernetes.io/component"]
        (container,) = pod["spec"]["containers"]
        (volume,) = [volume["secret"] for volume in pod["spec"]["volumes"] if volume["name"] == "tls"]
        (folder,) = [mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] == "tls"]
        assert volume["secretName"] == f"headrace-{component}-tls"
        there = {f"{folder}/{item['path']}" for item in volume["items"]}
        said = environment(container, objects)
        named = {said[name] for name in said if name.startswith("HEADRACE_TLS_") and name != "HEADRACE_TLS_NAME"}
        assert named == (there if component != "balancer" else set())
        if component != "balancer":
            assert said["HEADRACE_TLS_NAME"] in made[volume["secretName"]]["dnsNames"]
        # Kubernetes' own gRPC probes speak no TLS.
        assert [how for how in container.values() if isinstance(how, dict) and "grpc" in how] == []


def test_with_tls_prometheus_reads_by_a_certificate_of_its_own() -> None:
    objects = rendered("overlays/tls")
    made = {each["spec"]["secretName"]: each["spec"] for each in of_kind(objects, "Certificate")}
    (name,) = {
        data["HEADRACE_TLS_NAME"]
        for data in (each["data"] for each in of_kind(objects, "ConfigMap"))
        if "HEADRACE_TLS_NAME" in data
    }
    monitors = of_kind(objects, "ServiceMonitor", "PodMonitor")
    assert len(monitors) == 2
    for each in monitors:
        for endpoint in each["spec"].get("endpoints", []) + each["spec"].get("podMetricsEndpoints", []):
            how = endpoint["tlsConfig"]
            assert (endpoint["scheme"], how["serverName"]) == ("https", name)
            secrets = {how["ca"]["secret"]["name"], how["cert"]["secret"]["name"], how["keySecret"]["name"]}
            (secret,) = secrets
            assert "client auth" in made[secret]["usages"]


def test_volumes_that_are_mounted_are_there(objects: Objects) -> None:
    for each in of_kind(objects, "Deployment", "StatefulSet"):
        pod = each["spec"]["template"]["spec"]
        named = {volume["name"] for volume in pod.get("volumes", ())}
        named |= {claim["metadata"]["name"] for claim in each["spec"].get("volumeClaimTemplates", ())}
        for container in pod["containers"]:
            mounted = {mount["name"] for mount in container["volumeMounts"]}
            assert mounted == named, each["metadata"]["name"]


def test_ports_and_probes_are_those_of_the_image(objects: Objects) -> None:
    for _, container in containers(objects):
        declared = {port["containerPort"] for port in container["ports"]}
        said = environment(container, objects)
        listens = {int(said[name].rsplit(":", 1)[1]) for name in said if name.endswith(("_LISTEN", "_METRICS"))}
        assert listens <= declared, container["name"]
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            how = container.get(probe, {})
            port = (how.get("grpc") or how.get("tcpSocket") or {"port": min(declared)})["port"]
            assert port in declared


def test_processes_have_the_time_that_they_take_to_drain(objects: Objects) -> None:
    for pod, container in containers(objects):
        before = container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", ["", "0"])[1]
        drains = environment(container, objects).get("HEADRACE_DRAIN_SECONDS", "0")
        assert pod["terminationGracePeriodSeconds"] >= float(before) + float(drains) + 10, container["name"]


def test_pods_fit_the_restricted_standard(objects: Objects) -> None:
    """kubernetes.io/docs/concepts/security/pod-security-standards/#restricted, and a read-only root beside it."""
    for pod, container in containers(objects):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert pod.get("serviceAccountName") == "autoscaler" or pod["automountServiceAccountToken"] is False


def labels(objects: Objects) -> list[dict[str, str]]:
    """Of every kind of pod."""
    return [each["spec"]["template"]["metadata"]["labels"] for each in of_kind(objects, "Deployment", "StatefulSet")]


def selects(selector: dict[str, Any], pod: dict[str, str]) -> bool:
    """Whether a LabelSelector takes a pod."""
    listed = {each["key"]: each["values"] for each in selector.get("matchExpressions", ())}
    return all(pod.get(key) == value for key, value in selector.get("matchLabels", {}).items()) and all(
        pod.get(key) in values for key, values in listed.items()
    )


def test_what_selects_pods_selects_some(objects: Objects) -> None:
    for each in of_kind(objects, "Deployment", "StatefulSet"):
        assert selects(each["spec"]["selector"], each["spec"]["template"]["metadata"]["labels"])
    for each in of_kind(objects, "Service"):
        assert any(selects({"matchLabels": each["spec"]["selector"]}, pod) for pod in labels(objects)), each
    for each in of_kind(objects, "PodDisruptionBudget"):
        assert sum(selects(each["spec"]["selector"], pod) for pod in labels(objects)) == 1, each
    for each in of_kind(objects, "HorizontalPodAutoscaler", "ScaledObject"):
        names = {(found["kind"], found["metadata"]["name"]) for found in objects}
        goal = each["spec"]["scaleTargetRef"]
        assert (goal["kind"], goal["name"]) in names
    for each in of_kind(objects, "ServiceMonitor"):
        watched = [
            found
            for found in of_kind(objects, "Service")
            if selects(each["spec"]["selector"], found["metadata"]["labels"])
            and "metrics" in {port["name"] for port in found["spec"]["ports"]}
        ]
        assert {found["metadata"]["name"] for found in watched} == {"gateway", "registry", "autoscaler", "jobs"}


# Who calls whom, and where: what NetworkPolicies must let through. "": anybody.
CALLS = [
    ("", "balancer", 8001),
    ("balancer", "gateway", 8001),
    ("worker", "gateway", 8001),
    ("gateway", "registry", 8003),
    ("worker", "registry", 8003),
    ("autoscaler", "registry", 8003),
    ("jobs", "registry", 8003),
    ("gateway", "autoscaler", 8005),
    ("gateway", "jobs", 8006),
]
STRANGERS = [("", "gateway", 8001), ("", "registry", 8003), ("", "autoscaler", 8005), ("balancer", "registry", 8003)]


def admitted(objects: Objects, caller: str, called: str, port: int) -> bool:
    """Whether pods of one component may call those of another in the same namespace."""
    part = {"app.kubernetes.io/part-of": "headrace"}
    source = {"app.kubernetes.io/component": caller} | part if caller else {}
    goal = {"app.kubernetes.io/component": called} | part
    policies = [
        each["spec"] for each in of_kind(objects, "NetworkPolicy") if selects(each["spec"]["podSelector"], goal)
    ]
    rules = [rule for policy in policies for rule in policy.get("ingress", ())]
    return not policies or any(
        port in {each["port"] for each in rule.get("ports", [{"port": port}])}
        and ("from" not in rule or any(_is_peer(peer, source) for peer in rule["from"]))
        for rule in rules
    )


def _is_peer(peer: dict[str, Any], source: dict[str, str]) -> bool:
    spaces = peer.get("namespaceSelector", {})
    return spaces == {} and "podSelector" in peer and selects(peer["podSelector"], source)


def test_network_policies_let_through_what_headrace_needs_and_no_stranger(objects: Objects) -> None:
    for call in CALLS:
        assert admitted(objects, *call), f"{call} is not let through"
    for call in STRANGERS:
        assert not admitted(objects, *call), f"{call} is let through"


async def test_the_autoscalers_role_is_what_it_needs_and_no_more(tmp_path: Any) -> None:
    (role,) = of_kind(rendered("base"), "Role")
    granted = {(resource, verb) for rule in role["rules"] for resource in rule["resources"] for verb in rule["verbs"]}
    (deployment,) = [name for rule in role["rules"] for name in rule.get("resourceNames", ())]
    assert deployment in {each["metadata"]["name"] for each in of_kind(rendered("base"), "Deployment")}
    used: set[tuple[str, str]] = set()
    with kubernetes_api() as (url, cluster):
        token = tmp_path / "token"
        token.write_text(cluster.token)
        answer = cluster.answer

        def noted(method: str, path: str, body: Any) -> tuple[int, Any]:
            resource = "deployments/scale" if path.endswith("/scale") else "pods"
            verb = method.lower() if method != "GET" or resource != "pods" else "list"
            used.add((resource, verb))
            return answer(method, path, body)

        cluster.answer = noted  # type: ignore[method-assign]  # the same, with a note
        workers = Deployment(url, "models", "workers", token_path=token)
        await workers.add(2)
        await workers.remove([(await workers.instances())[0].id])
    assert used == granted
