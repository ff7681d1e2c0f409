"""What deploy/ says, as data: images and their services, Compose's file, Kubernetes' manifests as kubectl has them."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.autoscaler.settings import AutoscalerSettings
from services.common.settings import ServiceSettings
from services.gateway.settings import GatewaySettings
from services.jobs.settings import JobsSettings
from services.registry.__main__ import RegistrySettings
from services.single.app import SingleSettings
from services.worker.settings import WorkerSettings

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
SETTINGS: dict[str, type[ServiceSettings]] = {
    "autoscaler": AutoscalerSettings,
    "gateway": GatewaySettings,
    "jobs": JobsSettings,
    "registry": RegistrySettings,
    "single": SingleSettings,
    "worker": WorkerSettings,
}
# Read by the process, though no field of its settings: where its secrets lie.
BESIDE_SETTINGS = {"HEADRACE_SECRETS"}
_DEFAULT = re.compile(r"\$\{\w+(?::?-([^}]*))?\}")


@dataclass(frozen=True)
class Stage:
    """A stage of the Dockerfile that is an image: its environment, and the service that it runs ("" for proxies)."""

    environment: dict[str, str]
    service: str


def stages() -> dict[str, Stage]:
    """By target, those with a CMD."""
    found: dict[str, Stage] = {}
    text = (DEPLOY / "docker" / "Dockerfile").read_text().replace("\\\n", " ")
    for part in re.split(r"^FROM ", text, flags=re.MULTILINE)[1:]:
        name = re.match(r"\S+ AS (\S+)", part)
        command = re.search(r"^CMD (\[.*\])", part, re.MULTILINE)
        if name is None or command is None:
            continue
        said = dict(re.findall(r"(\w+)=(\S+)", " ".join(re.findall(r"^ENV (.*)", part, re.MULTILINE))))
        module = json.loads(command[1])[-1]
        found[name[1]] = Stage(said, module.removeprefix("services.") if module.startswith("services.") else "")
    return found


def wrong_settings(service: str, environment: Mapping[str, str]) -> list[str]:
    """What a service would not understand of the HEADRACE_* variables that it is given: names, and values."""
    settings = SETTINGS[service]
    given = {name: value for name, value in environment.items() if name.startswith("HEADRACE_")}
    unknown = [name for name in given if name.removeprefix("HEADRACE_").lower() not in settings.model_fields]
    known: dict[str, Any] = {
        name.removeprefix("HEADRACE_").lower(): value for name, value in given.items() if name not in unknown
    }
    try:
        settings(**known)
    except ValueError as error:
        return [*unknown, str(error)]
    return [name for name in unknown if name not in BESIDE_SETTINGS]


class Override(list[Any]):
    """A list that takes the other's place: Compose's `!override`."""


class _Loader(yaml.SafeLoader):
    """YAML as Compose has it."""


_Loader.add_constructor("!override", lambda loader, node: Override(loader.construct_sequence(node)))  # type: ignore[arg-type]  # types-PyYAML knows no other nodes


def composed(*names: str) -> dict[str, Any]:
    """Compose's file with its defaults put in, as nobody has set anything; further files are laid over it."""
    texts = [_DEFAULT.sub(r"\1", (DEPLOY / "compose" / name).read_text()) for name in names]
    merged: dict[str, Any] = {}
    for text in texts:
        merged = _laid_over(merged, yaml.load(text, _Loader))  # a SafeLoader
    return merged


def _laid_over(below: Any, above: Any) -> Any:
    """Compose merges mappings, and adds lists to lists."""
    if isinstance(below, dict) and isinstance(above, dict):
        return below | {key: _laid_over(below.get(key), value) for key, value in above.items()}
    if isinstance(below, list) and isinstance(above, list) and not isinstance(above, Override):
        return below + above
    return above


def rendered(folder: str) -> list[dict[str, Any]]:
    """The objects that `kubectl apply -k deploy/kubernetes/FOLDER` would send."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        assert "CI" not in os.environ, "CI needs kubectl"
        pytest.skip("no kubectl here, which brings kustomize")
    command = [kubectl, "kustomize", str(DEPLOY / "kubernetes" / folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def of_kind(objects: list[dict[str, Any]], *kinds: str) -> list[dict[str, Any]]:
    """Those of some kinds."""
    return [each for each in objects if each["kind"] in kinds]


def containers(objects: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Each pod's spec with each of its containers."""
    for each in of_kind(objects, "Deployment", "StatefulSet"):
        for container in each["spec"]["template"]["spec"]["containers"]:
            yield each["spec"]["template"]["spec"], container


def environment(container: Mapping[str, Any], objects: list[dict[str, Any]]) -> dict[str, str]:
    """Its variables: those of its image, of ConfigMaps, and its own; what the pod's own fields give is "field"."""
    maps = {each["metadata"]["name"]: each["data"] for each in of_kind(objects, "ConfigMap")}
    found = dict(stages()[target(container["image"])].environment)
    for source in container.get("envFrom", ()):
        found |= maps.get(source["configMapRef"]["name"], {})
    for variable in container.get("env", ()):
        value = variable.get("value", "field")
        found[variable["name"]] = re.sub(r"\$\((\w+)\)", lambda match: found[match[1]], value)
    return found


def target(image: str) -> str:
    """The Dockerfile's stage that an image is built of."""
    return image.rsplit("/", maxsplit=1)[-1].split(":", maxsplit=1)[0].removeprefix("headrace-")
