"""The console's page that is committed is what its sources give, and its pure parts do what they should."""

import shutil
import subprocess
from pathlib import Path

from services.gateway.console.pages import STATIC

ROOT = Path(__file__).resolve().parents[2]
MOST_BYTES = 200_000


def node(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs a script of the console's; what it needs comes from npm."""
    path = shutil.which("node")
    assert path is not None and (ROOT / "node_modules" / "esbuild").exists(), (
        "node or what package.json names is missing; `make test` installs the latter"
    )
    command = [path, str(ROOT / "console" / script), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)


def test_what_is_committed_is_what_the_sources_build(tmp_path: Path) -> None:
    built = node("build.mjs", str(tmp_path))
    assert built.returncode == 0, built.stderr
    fresh, committed = ({path.name: path.read_bytes() for path in each.iterdir()} for each in (tmp_path, STATIC))
    assert fresh.keys() == committed.keys()
    stale = sorted(name for name, content in fresh.items() if committed[name] != content)
    assert not stale, f"run `npm run build` and commit: {stale}"


def test_the_page_is_small() -> None:
    assert sum(path.stat().st_size for path in STATIC.iterdir()) < MOST_BYTES


def test_the_consoles_own_tests() -> None:
    ran = node("test/run.mjs")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "# fail 0" in ran.stdout, ran.stdout
