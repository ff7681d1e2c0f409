"""From a path to what is pushed."""

from dataclasses import dataclass, field
from pathlib import Path

from headrace.packages.error import PackageError
from headrace.packages.manifest import Manifest, read_manifest
from headrace.v1.model_pb2 import ModelSpec

__all__ = ["Package", "PackageError", "read_package"]

# Formats that unpickle, and so run whatever code was put into them.
PICKLES = {".pkl", ".pickle", ".joblib", ".pt", ".pth", ".bin", ".ckpt", ".dill"}
RUNTIMES = {".onnx": "onnx", ".pt2": "torch"}
MANIFEST = "model.yaml"


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
    return _package(Manifest(), path.parent, [path], path)


def _read_folder(folder: Path) -> Package:
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file.name != MANIFEST)
    for file in folder.rglob("*"):
        if file.is_symlink():
            raise PackageError(f"{file}: links are not followed; put the file itself into the folder")
    manifest = read_manifest(folder / MANIFEST)
    if manifest.entry is not None:
        entry = folder / manifest.entry
        if entry not in files:
            raise PackageError(f"{folder / MANIFEST}: entry names '{manifest.entry}', which is not in the folder")
        return _package(manifest, folder, files, entry)
    models = [file for file in files if file.suffix in RUNTIMES]
    if len(models) != 1:
        found = ", ".join(file.name for file in models) or "none"
        raise PackageError(f"{folder}: expected one .onnx or .pt2 file, or `entry:` in {MANIFEST}; found {found}")
    return _package(manifest, folder, files, models[0])


def _package(manifest: Manifest, folder: Path, files: list[Path], entry: Path) -> Package:
    for file in files:
        if file.suffix.lower() in PICKLES:
            raise PackageError(
                f"{file}: {file.suffix} files are pickles and can run any code; export to ONNX or with torch.export"
                " (.pt2)"
            )
    runtime = manifest.runtime or RUNTIMES.get(entry.suffix)
    if runtime is None:
        raise PackageError(f"{entry}: expected a .onnx file, a torch.export archive (.pt2) or a folder")
    spec = _inspect(entry, runtime)
    manifest.apply(spec)
    spec.entry = entry.relative_to(folder).as_posix()
    return Package(spec, {file.relative_to(folder).as_posix(): file for file in files})


def _inspect(entry: Path, runtime: str) -> ModelSpec:
    try:
        if runtime == "onnx":
            from headrace.packages.onnx_graph import inspect_onnx  # noqa: PLC0415  # only what the package needs

            return inspect_onnx(entry)
        from headrace.packages.torch_export import inspect_export  # noqa: PLC0415

        return inspect_export(entry)
    except ImportError as error:
        raise PackageError(
            f"{entry}: checking it needs the runtime ({error}); pip install 'headrace[worker-{runtime}]'"
        ) from error
