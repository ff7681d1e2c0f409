"""Clients made by others work unmodified: each runs as a process of its own against the stack, on both fronts."""

import subprocess
from pathlib import Path

import pytest

from tests.support.stack import RunningStack

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv-clients" / "bin" / "python"
NODE_MODULES = ROOT / "tests" / "node" / "node_modules"
CLIENTS = {
    "tritonclient": [str(PYTHON), "tests/clients/triton.py"],
    "kserve": [str(PYTHON), "tests/clients/kserve_client.py"],
    "grpc-js": ["node", "tests/node/infer.js"],
}


@pytest.mark.parametrize("name", CLIENTS)
def test_a_client_made_by_others_works_unmodified(stack: RunningStack, name: str) -> None:
    assert PYTHON.exists(), "the clients' venv is missing; `make test` makes it, or `make clients`"
    assert NODE_MODULES.exists(), "the node client is missing; `make test` installs it, or `make clients`"
    command = [*CLIENTS[name], stack.address("gateway")]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
