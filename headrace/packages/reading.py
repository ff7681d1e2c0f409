"""From a path to what is pushed."""

from dataclasses import dataclass, field
from pathlib import Path

from headrace.packages.embedding import is_sentence_encoder, read_embedding_model
from headrace.packages.ensemble import ensemble_spec
from headrace.packages.error import PackageError
from headrace.packages.identity import identity_spec
from headrace.packages.language_model import is_language_model, read_language_model, remote_spec
from headrace.packages.manifest import Manifest
from headrace.packages.manifest_file import ManifestFile, read_manifest
from headrace.v1.model_pb2 import ModelSpec

__all__ = ["Package", "PackageError", "local_path", "read_package"]

# Formats that unpickle, and so run whatever code was put into them.
PICKLES = {".pkl", ".pickle", ".joblib", ".pt", ".pth", ".bin", ".ckpt", ".dill"}
RUNTIMES = {".onnx": "onnx", ".pt2": "torch"}
MANIFEST = "model.yaml"
# What is nothing but its model.yaml.
WITHOUT_FILES = {"openai": remote_spec, "identity": identity_spec, "ensemble": ensemble_spec}


@dataclass(frozen=True, slots=True)
class Package:
    """What is pushed: the model's description, and its files by the path they will have."""

    spec: ModelSpec
    files: dict[str, Path] = field(default_factory=dict)


def read_package(path: Path) -> Package:
    """Reads and checks a package: the model is loaded once, so that nothing broken is ever published.

    Raises:
        PackageError: the message says what is wrong, where, and what was expected.
    """
    if not path.exists():
        raise PackageError(f"{path}: no such file or folder")
    if path.is_dir():
        return _read_folder(path)
    _refuse_pickles([path])
    runtime = RUNTIMES.get(path.suffix.lower())
    if runtime is None:
        raise PackageError(
            f"{path}: expected a .onnx file, a torch.export archive (.pt2), or a folder with one of them or with a"
            " Hugging Face model"
        )
    weights = _weights(path, runtime)
    _check_weights(path, weights, path.parent)
    return _package(ManifestFile(path, Manifest()), path.parent, [path, *weights], path, runtime)


def local_path(source: str | Path) -> Path:
    """Where the package is, once it has been fetched if it is on a hub (hf://org/name). Raises PackageError."""
    if not str(source).startswith("hf:"):
        return Path(source)
    try:
        from headrace.packages.hub import fetch_model  # noqa: PLC0415  # only who fetches from a hub needs it
    except ImportError as error:
        raise PackageError(f"{source}: fetching it needs ({error}); pip install 'headrace[hub]'") from error
    return fetch_model(str(source))


def _read_folder(folder: Path) -> Package:
    found = sorted(folder.rglob("*"))
    for file in found:
        if file.is_symlink():
            raise PackageError(f"{file}: links are not followed; put the file itself into the folder")
    files = [file for file in found if file.is_file() and file != folder / MANIFEST]
    said = read_manifest(folder / MANIFEST)
    if (spec_of := WITHOUT_FILES.get(said.manifest.runtime or "")) is not None:
        return Package(spec_of(said), {MANIFEST: folder / MANIFEST})
    if said.manifest.runtime == "tokenizer":
        spec = _tokenizer(folder, said)
        return Package(spec, {spec.entry: folder / spec.entry})
    if said.manifest.runtime == "embedding" or (said.manifest.runtime is None and is_sentence_encoder(folder)):
        _refuse_pickles([file for file in files if file.parent == folder], "save the weights as safetensors")
        spec, needed = read_embedding_model(folder, files, said)
        return Package(spec, {file.relative_to(folder).as_posix(): file for file in needed})
    if said.manifest.runtime in {"llm", "vllm"} or (said.manifest.runtime is None and is_language_model(folder)):
        _refuse_pickles(files, "save the weights as safetensors")
        spec, needed = read_language_model(folder, files, said.manifest.runtime or "llm")
        said.apply(spec)
        return Package(spec, {file.relative_to(folder).as_posix(): file for file in needed})
    entry = _entry(folder, files, said)
    runtime = said.manifest.runtime or RUNTIMES.get(entry.suffix.lower())
    if runtime is None:
        raise said.refuse(f"'{entry.name}' ends neither in .onnx nor in .pt2; say `runtime: onnx` or torch", "entry")
    weights = [] if entry.suffix.lower() in PICKLES else _weights(entry, runtime)
    _refuse_pickles([file for file in files if file not in weights])
    _check_weights(entry, weights, folder)
    return _package(said, folder, files, entry, runtime)


def _entry(folder: Path, files: list[Path], said: ManifestFile) -> Path:
    """The file that the runtime opens."""
    if said.manifest.entry is not None:
        if folder / said.manifest.entry in files and ".." not in Path(said.manifest.entry).parts:
            return folder / said.manifest.entry
        names = ", ".join(file.relative_to(folder).as_posix() for file in files) or "nothing"
        raise said.refuse(f"'{said.manifest.entry}' is not in the folder; there is {names}", "entry")
    models = [file for file in files if file.suffix.lower() in RUNTIMES]
    if len(models) != 1:
        _refuse_pickles(files)
        names = ", ".join(file.name for file in models) or "none"
        raise PackageError(f"{folder}: expected one .onnx or .pt2 file, or `entry:` in {MANIFEST}; found {names}")
    return models[0]


def _refuse_pickles(files: list[Path], instead: str = "export to ONNX or with torch.export (.pt2)") -> None:
    for file in files:
        if file.suffix.lower() in PICKLES:
            raise PackageError(f"{file}: {file.suffix} files are pickles and can run any code; {instead}")


def _check_weights(entry: Path, weights: list[Path], folder: Path) -> None:
    """ONNX keeps large weights in files beside the graph: they must be there, within the package, and no links."""
    for file in weights:
        inside = ".." not in file.relative_to(entry.parent).parts and file.resolve().is_relative_to(folder.resolve())
        if not inside or file.is_symlink():
            raise PackageError(f"{entry}: keeps weights in '{file}', outside of the package; expected a file beside it")
        if not file.is_file():
            raise PackageError(f"{entry}: keeps weights in '{file.name}', which is not there; expected it at {file}")


def _package(said: ManifestFile, folder: Path, files: list[Path], entry: Path, runtime: str) -> Package:
    spec = _inspect(entry, runtime)
    said.apply(spec)
    spec.entry = entry.relative_to(folder).as_posix()
    return Package(spec, {file.relative_to(folder).as_posix(): file for file in files})


def _weights(entry: Path, runtime: str) -> list[Path]:
    """Files beside an ONNX graph that hold its weights."""
    if runtime != "onnx":
        return []
    try:
        from headrace.packages.onnx_weights import external_weights  # noqa: PLC0415

        return external_weights(entry)
    except ImportError as error:
        raise _lacking(entry, runtime, error) from error


def _inspect(entry: Path, runtime: str) -> ModelSpec:
    try:
        if runtime == "onnx":
            from headrace.packages.onnx_graph import inspect_onnx  # noqa: PLC0415  # only what the package needs

            return inspect_onnx(entry)
        from headrace.packages.torch_export import inspect_export  # noqa: PLC0415

        return inspect_export(entry)
    except ImportError as error:
        raise _lacking(entry, runtime, error) from error


def _tokenizer(folder: Path, said: ManifestFile) -> ModelSpec:
    try:
        from headrace.packages.tokenizer import tokenizer_spec  # noqa: PLC0415

        return tokenizer_spec(folder, said)
    except ImportError as error:
        raise _lacking(folder, "tokenizer", error) from error


def _lacking(entry: Path, runtime: str, error: ImportError) -> PackageError:
    return PackageError(f"{entry}: checking it needs the runtime ({error}); pip install 'headrace[worker-{runtime}]'")
