"""`runtime: identity`: no model, a known service time. For trying out scaling, batching and load, as Triton's identity
backend with its execute_delay is."""

from headrace.packages.manifest_file import ManifestFile
from headrace.v1.model_pb2 import ModelSpec

DELAYS = ("batch_ms", "request_ms")


def identity_spec(said: ManifestFile) -> ModelSpec:
    """x FP32 [N, M] → y, the same; a batch takes `batch_ms`, and `request_ms` for each row. Raises PackageError."""
    spec = ModelSpec(runtime="identity", entry=said.path.name)
    spec.inputs.add(name="x", datatype="FP32", shape=[-1, -1])
    spec.outputs.add(name="y", datatype="FP32", shape=[-1, -1])
    spec.batching.max_batch_size = 8
    for key, value in said.manifest.parameters.items():
        if key in DELAYS and not _is_delay(value):
            raise said.refuse(f"{value!r}; expected milliseconds from 0 to 60000, as a number", "parameters", key)
    said.apply(spec)
    return spec


def _is_delay(value: str) -> bool:
    try:
        return 0 <= float(value) <= 60_000
    except ValueError:
        return False
