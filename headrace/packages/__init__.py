"""Reading what `headrace push` is given: a .onnx file, a .pt2 archive, or a folder with model.yaml."""

from headrace.packages.reading import Package, PackageError, read_package

__all__ = ["Package", "PackageError", "read_package"]
