"""Which file of a version holds the model, and whether Headrace runs what Triton's backend ran."""

import zipfile
from dataclasses import dataclass
from pathlib import Path

from headrace.inference.model_config_pb2 import ModelConfig
from headrace.triton.findings import Refused

_EXPORT = "export the model to ONNX (.onnx) or with torch.export (.pt2) and push that"
# Backend → what to do instead. Platforms are the older spelling: onnxruntime_onnx, pytorch_libtorch, tensorrt_plan …
_OTHERS = {
    "tensorrt": f"plans run on TensorRT only; {_EXPORT}: the network that the plan was built from",
    "tensorflow": f"TensorFlow models are not run; {_EXPORT}: tf2onnx converts SavedModels and GraphDefs",
    "openvino": f"OpenVINO models are not run; {_EXPORT}: the model that it was converted from",
    "python": "Python in the server is not run; keep that code with the caller or in a service of its own",
    "dali": "DALI pipelines are not run; prepare inputs before the call",
    "fil": f"the forest library is not run; {_EXPORT}: onnxmltools and skl2onnx convert forests",
    "vllm": "push the Hugging Face folder itself: headrace push NAME hf://org/name",
    "tensorrtllm": "push the Hugging Face folder itself: headrace push NAME hf://org/name",
}
# What Triton takes a file or folder of this name to be, when the config does not say.
_BY_FILE = {
    "model.onnx": "onnxruntime",
    "model.pt": "pytorch",
    "model.pt2": "pytorch",
    "model.plan": "tensorrt",
    "model.savedmodel": "tensorflow",
    "model.graphdef": "tensorflow",
    "model.xml": "openvino",
    "model.py": "python",
    "model.dali": "dali",
}
_PLATFORMS = {"onnxruntime_onnx": "onnxruntime", "pytorch_libtorch": "pytorch", "torch_aoti": "pytorch"}
_FILES = {"onnxruntime": "model.onnx", "pytorch": "model.pt"}
_RUNTIMES = {"onnxruntime": "onnx", "pytorch": "torch"}


@dataclass(frozen=True, slots=True)
class Entry:
    """The file that is opened, and by which of Headrace's runtimes."""

    path: Path
    runtime: str


def model_file(config: ModelConfig, version: Path) -> Entry:
    """The file of a version's folder that holds the model.

    Raises:
        Refused: the backend is not one that Headrace has, or the file is not there or not of a kind that is run.
    """
    setting, backend = _backend(config, version)
    if backend not in _FILES:
        what = _OTHERS.get(backend, f"no such runtime here; {_EXPORT}")
        raise Refused(setting, f"'{backend}': {what}")
    path = _find(version, config.default_model_filename, _FILES[backend])
    if backend == "pytorch":
        _check_export(path, version)
    return Entry(path, _RUNTIMES[backend])


def _backend(config: ModelConfig, version: Path) -> tuple[str, str]:
    """The backend, and what says so."""
    if config.backend:
        return "backend", config.backend
    if config.platform:
        platform = config.platform
        return "platform", _PLATFORMS.get(platform, platform.partition("_")[0])
    names = [config.default_model_filename, *sorted(path.name for path in version.iterdir())]
    for name in names:
        if name in _BY_FILE:
            return f"{version.name}/{name}", _BY_FILE[name]
    found = ", ".join(filter(None, names)) or "nothing"
    raise Refused(
        f"{version.name}/", f"expected model.onnx, or a config.pbtxt that says what the files are; got {found}"
    )


def _find(version: Path, said: str, usual: str) -> Path:
    """Triton takes model.onnx for a folder, too, where the weights lie beside the graph."""
    names = [said] if said else [usual, "model.pt2"] if usual == "model.pt" else [usual]
    for name in names:
        for path in (version / name, version / name / usual):
            if path.is_file():
                return path
    raise Refused(f"{version.name}/{names[0]}", "no such file; default_model_filename names another")


def _check_export(path: Path, version: Path) -> None:
    """An archive of torch.export has a marker of its own; a TorchScript file has code in it."""
    setting = path.relative_to(version.parent).as_posix()
    if not zipfile.is_zipfile(path):
        raise Refused(setting, f"not a torch.export archive but a pickle; {_EXPORT}")
    with zipfile.ZipFile(path) as archive:
        names = [name.partition("/")[2] for name in archive.namelist()]
    if any(name.startswith("data/aotinductor/") for name in names):
        raise Refused(setting, "compiled by AOTInductor for one machine; save the program with torch.export.save")
    if "archive_format" not in names:
        raise Refused(
            setting, "this is TorchScript; export the module again: torch.export.save(torch.export.export(…))"
        )
