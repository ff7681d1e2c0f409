"""Put on PYTHONPATH, it gives some models the faults that runtimes have: by name, in an otherwise untouched worker.

crashes-on-load, crashes-on-run: the process gets a SIGSEGV, as from a kernel that runs astray. leaks: each run keeps
eight mebibytes for ever.
"""

import importlib.abc
import importlib.util
import os
import signal
import sys
from types import ModuleType
from typing import Any

TARGET = "services.worker.runtime.onnx"


def _spoil(module: ModuleType) -> None:
    sound: Any = module.__dict__["OnnxModel"]
    kept: list[bytearray] = []

    class OnnxModel(sound):  # type: ignore[misc] # its base is known at run time only
        def __init__(self, path: Any, threads: int) -> None:
            self.name = path.parent.parent.name
            if self.name == "crashes-on-load":
                os.kill(os.getpid(), signal.SIGSEGV)
            super().__init__(path, threads)

        def run(self, inputs: dict[str, Any]) -> dict[str, Any]:
            if self.name == "crashes-on-run":
                os.kill(os.getpid(), signal.SIGSEGV)
            if self.name == "leaks":
                kept.append(bytearray(b"x" * 2**23))
            outputs: dict[str, Any] = super().run(inputs)
            return outputs

    module.__dict__["OnnxModel"] = OnnxModel


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        if fullname != TARGET:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def spoiled(module: ModuleType) -> None:
                execute(module)
                _spoil(module)

            spec.loader.exec_module = spoiled  # type: ignore[method-assign] # this one spec's loader only
        return spec


sys.meta_path.insert(0, _Finder())
