"""Holds the versions of constraints.txt against the known vulnerabilities, by pip-audit.

    make audit

pip-audit says "no known vulnerabilities" of packages that it could not ask about. Here that counts as what it is: exit
1 for a vulnerability, 2 where the database does not answer for everything.
"""

import json
import subprocess
import sys


def verdict(report: dict[str, list[dict[str, object]]]) -> tuple[int, list[str]]:
    """Exit code and lines to print for pip-audit's report."""
    every = report["dependencies"]
    skipped = [each for each in every if "skip_reason" in each]
    found = [(each["name"], each["version"], vuln) for each in every for vuln in _vulnerabilities(each)]
    lines = [f"{name} {version}: {vuln['id']}, fixed in {vuln['fix_versions']}" for name, version, vuln in found]
    lines.append(f"{len(every) - len(skipped)} of {len(every)} packages audited, {len(found)} known vulnerabilities")
    if len(skipped) == len(every):
        # pip-audit says of each package that it is "not found on PyPI".
        lines = [
            "NOT AUDITED: no package at all is known where pip-audit asks, so there is no vulnerability database"
            " behind it (mirrors have none); run this where PyPI itself can be reached"
        ]
    elif skipped:
        lines.append(f"NOT AUDITED: {len(skipped)}; the first: {skipped[0]['skip_reason']}")
    return (1 if found else 2 if skipped else 0), lines


def _vulnerabilities(entry: dict[str, object]) -> list[dict[str, object]]:
    found = entry.get("vulns", [])
    assert isinstance(found, list)
    return found


def main(tool: str) -> int:
    """Runs pip-audit; prints what came of it."""
    command = [tool, "--requirement", "constraints.txt", "--no-deps", "--disable-pip", "--format", "json"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if not ran.stdout.strip():
        print(f"NOT AUDITED: {(ran.stderr.strip().splitlines() or ['pip-audit said nothing'])[-1]}")
        return 2
    code, lines = verdict(json.loads(ran.stdout))
    print("\n".join(lines))
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
