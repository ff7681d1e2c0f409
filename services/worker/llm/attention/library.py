"""Where the binary of paged.cpp comes from: from beside it, where an image's build has put it, or from a compiler.

    python -m services.worker.llm.attention.library FOLDER     # what images do: one binary for each kind of processor

Binaries beside the source are made for kinds of processors and named for the source that they were made of: an old one
is never loaded. A compiler makes one for this very processor, once, into the user's cache. Where neither is, the engine
takes the gather kernel.
"""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from services.common.errors import FailedPrecondition

_SOURCE = Path(__file__).with_name("paged.cpp")
_FLAGS = ("-std=c++17", "-O3", "-fno-math-errno", "-fno-trapping-math", "-fopenmp", "-fPIC", "-shared")
_BESIDE = _SOURCE.parent
_COMPILE_SECONDS = 120
_CPU = Path("/proc/cpuinfo")
# Machine → kinds of processors, the best first, each with what /proc/cpuinfo must say of it: the levels of the x86-64
# psABI as far as they go beyond each other, and every 64-bit Arm.
_KINDS: dict[str, dict[str, set[str]]] = {
    "x86_64": {
        "x86-64-v4": {
            "avx512f",
            "avx512bw",
            "avx512cd",
            "avx512dq",
            "avx512vl",
            "avx2",
            "fma",
            "bmi2",
            "f16c",
            "movbe",
        },
        "x86-64-v3": {"avx2", "fma", "bmi1", "bmi2", "f16c", "movbe"},
    },
    "aarch64": {"armv8-a": set()},
}


def library() -> ctypes.CDLL:
    """The kernel. Raises FailedPrecondition where it can be had from nowhere."""
    path = prebuilt(_BESIDE, platform.machine(), features()) or _compiled_here()
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise FailedPrecondition(f"{path} does not load: {error}; delete it to have it compiled again") from error


def prebuilt(folder: Path, machine: str, features: set[str]) -> Path | None:
    """The best binary in `folder` that a processor with these features runs; None: there is none."""
    for kind, needed in _KINDS.get(machine, {}).items():
        if needed <= features and (path := folder / file_name(kind)).exists():
            return path
    return None


def build(folder: Path) -> list[Path]:
    """Compiles for each kind of processor of this machine's architecture. Raises FailedPrecondition."""
    kinds = _KINDS.get(platform.machine(), {})
    paths = [folder / file_name(kind) for kind in kinds]
    for kind, path in zip(kinds, paths, strict=True):
        _compile(_compiler(), kind, path)
    return paths


def _compiled_here() -> Path:
    """For this processor, from the user's cache where it is there already."""
    compiler = _compiler()
    path = _cache_folder() / f"paged-{_fingerprint(compiler)}.so"
    if not path.exists():
        _compile(compiler, "native", path)
    return path


def _compiler() -> str:
    found = next(filter(None, map(shutil.which, (os.environ.get("CXX", ""), "c++", "g++", "clang++"))), None)
    if found is None:
        raise FailedPrecondition("native attention needs a C++ compiler (Debian: apt install g++)")
    return found


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "headrace" / "native"


def file_name(kind: str) -> str:
    """What the binary of this source for a kind of processor is called."""
    return f"paged-{kind}-{_digest(_SOURCE.read_text(), *_FLAGS)}.so"


def _fingerprint(compiler: str) -> str:
    """Of all that the binary depends on: source, flags, compiler, and the processor that -march=native means."""
    lines = _CPU.read_text().splitlines() if _CPU.exists() else [platform.processor()]
    described = sorted({line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))})
    return _digest(_SOURCE.read_text(), *_FLAGS, compiler, platform.machine(), *described)


def _digest(*parts: str) -> str:
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=12).hexdigest()


def features() -> set[str]:
    """What this processor can do, in the words of /proc/cpuinfo."""
    lines = _CPU.read_text().splitlines() if _CPU.exists() else []
    return {word for line in lines if line.startswith(("flags", "Features")) for word in line.split()}


def _compile(compiler: str, processor: str, path: Path) -> None:
    """Into a file of its own first, so that processes that start together never load half a binary."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            output = Path(folder) / path.name
            command = [compiler, *_FLAGS, f"-march={processor}", "-o", str(output), str(_SOURCE)]
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=_COMPILE_SECONDS)
            output.replace(path)
    except subprocess.CalledProcessError as error:
        raise FailedPrecondition(f"{compiler} cannot compile native attention: {error.stderr.strip()}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise FailedPrecondition(f"native attention cannot be compiled: {error}") from error


if __name__ == "__main__":
    for made in build(Path(sys.argv[1])):
        print(made)
