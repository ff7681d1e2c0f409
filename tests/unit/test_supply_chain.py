"""What `make audit` and `make sbom` make of what their tools say."""

from importlib.metadata import distributions
from typing import Any

import pytest

from tools.audit import verdict
from tools.sbom import closure, normal, part_of

FINE = {"name": "a", "version": "1", "vulns": []}
BAD = {"name": "b", "version": "2", "vulns": [{"id": "CVE-1", "fix_versions": ["3"]}]}
UNASKED = {"name": "c", "version": "3", "skip_reason": "not found"}


@pytest.mark.parametrize(
    ("dependencies", "code", "said"),
    [
        ([FINE], 0, "1 of 1 packages audited, 0 known"),
        ([FINE, BAD], 1, "b 2: CVE-1, fixed in ['3']"),
        ([FINE, UNASKED], 2, "NOT AUDITED: 1; the first: not found"),
        ([UNASKED, UNASKED], 2, "there is no vulnerability database"),
        ([BAD, UNASKED], 1, "1 of 2 packages audited, 1 known"),
    ],
)
def test_what_was_not_asked_about_is_not_audited(dependencies: list[dict[str, Any]], code: int, said: str) -> None:
    ended, lines = verdict({"dependencies": dependencies})
    assert ended == code
    assert said in "\n".join(lines)


def test_a_bill_holds_what_is_brought_and_no_more() -> None:
    installed = {normal(each.name): each for each in distributions()}
    names = closure(installed, ["pyjwt[crypto]>=2.10", "pytest; python_version < '3'"])
    assert {"pyjwt", "cryptography", "cffi"} <= names
    assert "pytest" not in names
    components = [{"name": name, "bom-ref": name} for name in ("PyJWT", "cffi", "pytest")]
    own: dict[str, Any] = {"ref": "own", "dependsOn": ["PyJWT", "pytest"]}
    bill = {
        "metadata": {"component": {"bom-ref": "own"}},
        "components": components,
        "dependencies": [own, {"ref": "pytest", "dependsOn": ["cffi"]}, {"ref": "cffi"}],
    }
    part = part_of(bill, names)
    assert [each["name"] for each in part["components"]] == ["PyJWT", "cffi"]
    assert part["dependencies"] == [{"ref": "own", "dependsOn": ["PyJWT"]}, {"ref": "cffi"}]
