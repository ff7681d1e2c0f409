"""Writes a CycloneDX bill of materials for all that is installed by itself: dist/sbom/gateway.cdx.json and so on.

    make sbom

`cyclonedx-py` describes the whole development environment; of that, each bill holds what one extra brings.
"""

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from tools.requirements_of import requirements

# The extras of pyproject.toml that images and users install; `client` is Headrace without any.
SHIPPED = ("client", "gateway", "registry", "autoscaler", "jobs", "worker-onnx", "worker-torch", "worker-llm")


def normal(name: str) -> str:
    """A package's name as the package index compares them."""
    return re.sub(r"[-_.]+", "-", name).lower()


def closure(installed: dict[str, Distribution], wanted: Iterable[str]) -> set[str]:
    """Names of everything that these requirements bring. Raises KeyError: something is not installed."""
    found: set[str] = set()
    seen: set[tuple[str, str]] = set()
    waiting = [place for line in wanted for place in _places(Requirement(line), "")]
    while waiting:
        if (each := waiting.pop()) in seen:
            continue
        seen.add(each)
        found.add(each[0])
        for line in installed[each[0]].requires or []:
            waiting += _places(Requirement(line), each[1])
    return found


def _places(needed: Requirement, extra: str) -> list[tuple[str, str]]:
    """A requirement's name with each of its extras; none where its marker does not hold here."""
    if needed.marker is not None and not needed.marker.evaluate({"extra": extra}):
        return []
    return [(normal(needed.name), each) for each in ("", *needed.extras)]


def part_of(bill: dict[str, Any], names: set[str]) -> dict[str, Any]:
    """The same bill with the components of these names only, and what they depend on among each other."""
    components = [each for each in bill["components"] if normal(each["name"]) in names]
    own = bill["metadata"]["component"]["bom-ref"]
    refs = {own, *(each["bom-ref"] for each in components)}
    dependencies = []
    for entry in bill["dependencies"]:
        if entry["ref"] in refs:
            among = [ref for ref in entry.get("dependsOn", []) if ref in refs]
            dependencies.append({"ref": entry["ref"]} | ({"dependsOn": among} if among else {}))
    return {**bill, "components": components, "dependencies": dependencies}


def main(environment: Path, tool: Path, folder: Path) -> None:
    """Writes the bills of an environment's Python, by way of `cyclonedx-py`."""
    command = [str(tool), "environment", str(environment / "bin" / "python"), "--pyproject", "pyproject.toml"]
    written = subprocess.run([*command, "--output-reproducible"], check=True, capture_output=True)
    bill = json.loads(written.stdout)
    places = [str(path) for path in environment.glob("lib/python3*/site-packages")]
    installed = {normal(each.name): each for each in distributions(path=places)}
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    folder.mkdir(parents=True, exist_ok=True)
    for extra in SHIPPED:
        names = closure(installed, requirements(project, [] if extra == "client" else [extra]))
        part = part_of(bill, names)
        path = folder / f"{extra}.cdx.json"
        path.write_text(json.dumps(part, indent=1) + "\n")
        print(f"{path}: {len(part['components'])} components")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
