"""Finding the files in which an ONNX graph keeps its weights, where they are not in the .onnx file itself."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from headrace.packages.error import PackageError


def external_weights(path: Path) -> list[Path]:
    """The files that the graph names, each once; they need not exist.

    Raises:
        ImportError: onnx is not installed.
        PackageError: the file is no ONNX graph, or names a file by an absolute path.
    """
    import onnx  # noqa: PLC0415  # only `headrace push` of such a file needs it
    from onnx.external_data_helper import ExternalDataInfo, uses_external_data  # noqa: PLC0415

    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # onnx hands on whatever the decoder raises
        raise PackageError(f"{path}: not an ONNX graph: {error}") from error
    graphs = [model.graph, *model.functions]
    locations = dict.fromkeys(
        ExternalDataInfo(tensor).location
        for graph in graphs
        for tensor in _tensors(graph)
        if uses_external_data(tensor)
    )
    for location in locations:
        if not location or Path(location).is_absolute():
            raise PackageError(f"{path}: keeps weights in '{location}'; expected a path relative to the graph")
    return [path.parent / location for location in locations]


def _tensors(graph: Any) -> Iterator[Any]:
    """Every tensor of a graph or function, those of inner graphs included."""
    yield from getattr(graph, "initializer", ())
    for sparse in getattr(graph, "sparse_initializer", ()):
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            yield attribute.t
            yield from attribute.tensors
            for inner in (attribute.g, *attribute.graphs):
                yield from _tensors(inner)
