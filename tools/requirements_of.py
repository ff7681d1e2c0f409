"""Prints what the extras of pyproject.toml need, one requirement a line, without Headrace itself.

    python tools/requirements_of.py gateway worker-onnx

Images install this first: the layer is made anew only when dependencies change, not with each line of code.
"""

import re
import sys
import tomllib
from pathlib import Path

_SELF = re.compile(r"headrace\[([\w,-]+)\]")


def requirements(project: dict[str, object], extras: list[str]) -> list[str]:
    """The project's own dependencies and those of its extras, extras of extras included. Raises KeyError."""
    optional, own = project["optional-dependencies"], project["dependencies"]
    assert isinstance(optional, dict)
    assert isinstance(own, list)
    found = list(own)
    for extra in extras:
        for requirement in optional[extra]:
            match = _SELF.fullmatch(requirement)
            found += requirements(project, match[1].split(",")) if match else [requirement]
    return list(dict.fromkeys(found))


if __name__ == "__main__":
    pyproject = tomllib.loads(Path(__file__).parents[1].joinpath("pyproject.toml").read_text())
    print("\n".join(requirements(pyproject["project"], sys.argv[1:])))
