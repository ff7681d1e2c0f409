"""Each service starts with its own extra alone: images install no more."""

import importlib.metadata
import re
import runpy
import sys
import tomllib
from collections.abc import Iterator

import pytest

from tests.unit.test_imports import MODULES, ROOT, imports

# What runs as a process → the extras that its image installs.
EXTRAS = {
    "services.autoscaler.__main__": ["autoscaler"],
    "services.broker.__main__": ["service"],
    "services.gateway.__main__": ["gateway"],
    "services.gateway.envoy_app": ["gateway"],
    "services.jobs.__main__": ["jobs"],
    "services.registry.__main__": ["registry"],
    "services.single.__main__": ["gateway", "worker-onnx"],
    "services.single.envoy_app": ["gateway", "worker-onnx"],
    "services.worker.__main__": ["worker-onnx"],
}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DISTRIBUTIONS = importlib.metadata.packages_distributions()
NAME = re.compile(r"^[\w.-]+")


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def installed(extras: list[str]) -> set[str]:
    """The distributions that pip brings for these extras, their own requirements included."""
    direct = runpy.run_path(str(ROOT / "tools" / "requirements_of.py"))["requirements"](PROJECT, extras)
    found, waiting = set[str](), list(direct)
    while waiting:
        said = waiting.pop()
        match = NAME.match(said)
        assert match, said
        name = normal(match[0])
        if name in found or "extra ==" in said:
            continue
        found.add(name)
        try:
            waiting += importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # of another system or Python
    return found


def third_party(module: str) -> Iterator[tuple[str, str]]:
    """(our module, what of others it imports) for everything that comes in when `module` is imported."""
    seen, waiting = {module}, [module]
    while waiting:
        name = waiting.pop()
        for imported in imports(MODULES[name], at_start_only=True) if name in MODULES else ():
            top = imported.split(".")[0]
            if top in {"services", "headrace"}:
                ours = [
                    imported,
                    *(".".join(imported.split(".")[:depth]) for depth in range(1, imported.count(".") + 1)),
                ]
                new = [each for each in ours if each in MODULES and each not in seen]
                seen.update(new)
                waiting += new
            elif top not in sys.stdlib_module_names:
                yield name, top


@pytest.mark.parametrize("module", EXTRAS)
def test_what_a_service_imports_is_in_its_extra(module: str) -> None:
    available = installed(EXTRAS[module])
    missing = {
        f"{ours} imports {top}"
        for ours, top in third_party(module)
        if not {normal(each) for each in DISTRIBUTIONS.get(top, [])} & available
    }
    assert not missing, f"pip install 'headrace[{','.join(EXTRAS[module])}]' lacks them"


def test_every_process_is_listed() -> None:
    processes = {name for name in MODULES if re.fullmatch(r"services\.\w+\.(__main__|envoy_app)", name)}
    assert processes == set(EXTRAS)
