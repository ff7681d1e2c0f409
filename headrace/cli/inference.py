"""infer: one request from the terminal."""

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.markup import escape

from headrace.cli.console import exit_codes, out, print_json
from headrace.client.errors import InvalidArgumentError
from headrace.client.inference import DEFAULT_ADDRESS, Client, InferResult
from headrace.client.tensors import Array
from headrace.inference.grpc_service_pb2 import ModelMetadataResponse

_DTYPES = {"BOOL": "bool", "FP16": "float16", "FP32": "float32", "FP64": "float64", "BYTES": "object"} | {
    f"{sign}INT{bits}": f"{sign.lower()}int{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64)
}


def infer(
    name: Annotated[str, typer.Argument(help="The model's name.")],
    inputs: Annotated[
        list[str] | None,
        typer.Option("--input", "-i", help="NAME=JSON or NAME=@file.npy; once for each input."),
    ] = None,
    random: Annotated[
        bool, typer.Option("--random", help="Fill inputs that are not given with random numbers.")
    ] = False,
    version: Annotated[str, typer.Option(help="A number or an alias; empty: the latest.")] = "",
    timeout: Annotated[float, typer.Option(help="Seconds.")] = 60.0,
    address: Annotated[
        str, typer.Option("--address", envvar="HEADRACE_ADDRESS", help="The gateway.")
    ] = DEFAULT_ADDRESS,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False,
) -> None:
    """Run a model once."""
    with exit_codes(), Client(address) as client:
        arrays = _arrays(client.metadata(name, version), inputs or [], random)
        result = client.infer(name, arrays, version=version, timeout=timeout)
    if as_json:
        print_json(
            {
                "model_version": result.model_version,
                "outputs": {key: _plain(value) for key, value in result.outputs.items()},
                "receipt": result.receipt,
            }
        )
        return
    _show(name, result)


def _show(name: str, result: InferResult) -> None:
    for key, value in result.outputs.items():
        out().print(f"[bold]{escape(key)}[/bold] {value.dtype}{list(value.shape)}")
        out().print(np.array2string(value, threshold=64, precision=4), highlight=False, markup=False)
    receipt = result.receipt
    out().print(
        f"[dim]{name} version {result.model_version}: queue {receipt.get('queue_us', 0) / 1000:.2f} ms, batch"
        f" {receipt.get('batch_us', 0) / 1000:.2f} ms, compute {receipt.get('compute_us', 0) / 1000:.2f} ms,"
        f" {receipt.get('batch_requests', 1)} in the batch[/dim]"
    )
    for stage in receipt.get("stages", []):
        out().print(f"[dim]  {stage['model']} version {stage['version']}: {stage['compute_us'] / 1000:.2f} ms[/dim]")


def _arrays(metadata: ModelMetadataResponse, given: list[str], random: bool) -> dict[str, Array]:
    """The inputs that were given, in the types that the model wants."""
    arrays: dict[str, Array] = {}
    tensors = {tensor.name: tensor for tensor in metadata.inputs}
    for item in given:
        key, separator, value = item.partition("=")
        if not separator or key not in tensors:
            raise InvalidArgumentError(
                f"--input {item!r}: expected NAME=JSON or NAME=@file.npy; inputs: {list(tensors)}"
            )
        arrays[key] = _array(key, value, _dtype(key, tensors[key].datatype))
    missing = tensors.keys() - arrays.keys()
    if missing and not random:
        raise InvalidArgumentError(f"inputs {sorted(missing)} are missing; give them with --input, or --random")
    generator = np.random.default_rng()
    for key in missing:
        shape = [1 if size < 0 else size for size in tensors[key].shape]
        arrays[key] = (generator.random(shape) * 2).astype(_dtype(key, tensors[key].datatype))
    return arrays


def _dtype(key: str, datatype: str) -> str:
    if (dtype := _DTYPES.get(datatype)) is None:
        raise InvalidArgumentError(f"input '{key}' is {datatype}, which this command cannot make; use a client")
    return dtype


def _array(key: str, value: str, dtype: str) -> Array:
    try:
        if value.startswith("@"):
            loaded: Array = np.load(Path(value[1:]), allow_pickle=False)
            return loaded
        return np.array(json.loads(value), dtype=dtype)
    except (OSError, ValueError) as error:
        raise InvalidArgumentError(f"--input {key}: {error}") from error


def _plain(array: Array) -> Any:
    if array.dtype == object:
        flat = [value.decode(errors="replace") if isinstance(value, bytes) else value for value in array.ravel()]
        return np.array(flat, dtype=object).reshape(array.shape).tolist()
    return array.tolist()
