"""The generated code that is committed is what the protos generate."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
KINDS = ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py", "_pb2_grpc.pyi")


def generated(root: Path) -> dict[str, str]:
    """Relative path → text of every generated file below root/headrace."""
    files = (path for path in (root / "headrace").rglob("*_pb2*") if path.name.endswith(KINDS))
    return {path.relative_to(root).as_posix(): path.read_text() for path in files}


def test_what_is_committed_is_what_the_protos_generate(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "tools" / "generate_protos.py"), str(tmp_path)]
    # protoc looks for its plugins on the PATH; they are installed beside this interpreter.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(command, check=True, timeout=100, env={**os.environ, "PATH": path})
    fresh, committed = generated(tmp_path), generated(ROOT)
    assert len(fresh) >= 4 * len(list((ROOT / "protos").rglob("*.proto")))
    stale = sorted(path for path in fresh.keys() | committed.keys() if fresh.get(path) != committed.get(path))
    assert not stale, f"run `python tools/generate_protos.py` and commit: {stale}"
