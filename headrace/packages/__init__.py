"""Reading what `headrace push` is given: a .onnx file, a .pt2 archive, a folder, or hf://org/name."""

from headrace.packages.reading import Package, PackageError, local_path, read_package

__all__ = ["Package", "PackageError", "local_path", "read_package"]
