"""Compiles protos/ into headrace/: messages, service stubs and their types.

    python tools/generate_protos.py [OUTPUT_FOLDER]

Everything compiles from the root with -Iprotos, so `protos/headrace/v1/x.proto` becomes `headrace/v1/x_pb2.py` and no
import needs rewriting. tests/unit/test_generated_code.py proves that what is committed is what this makes.
"""

import sys
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"


def generate(output: Path) -> None:
    """Writes the generated modules below `output`.

    Raises:
        SystemExit: protoc refused a file; its message is on stderr.
    """
    sources = sorted(str(path.relative_to(PROTOS)) for path in PROTOS.rglob("*.proto"))
    well_known = files("grpc_tools") / "_proto"
    code = protoc.main(
        [
            "protoc",
            f"-I{PROTOS}",
            f"-I{well_known}",
            f"--python_out={output}",
            f"--grpc_python_out={output}",
            f"--mypy_out=quiet:{output}",
            f"--mypy_grpc_out=quiet:{output}",
            *sources,
        ]
    )
    if code:
        raise SystemExit(code)


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT
    sys.path.insert(0, str(PROTOS))
    generate(target)
