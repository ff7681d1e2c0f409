"""model_warmup: Triton runs requests that the config describes; Headrace runs zeros of given sizes."""

from typing import Any

from headrace.inference.model_config_pb2 import ModelConfig
from headrace.triton.findings import Finding, Outcome
from headrace.v1.model_pb2 import ModelSpec


def warmup(config: ModelConfig, spec: ModelSpec, max_batch_size: int, findings: list[Finding]) -> dict[str, Any]:
    """What model.yaml says under `warmup`; {}: nothing, so that batches of 1 and of the largest size are run."""
    free = {tensor.name: -1 in tensor.shape[1 if max_batch_size else 0 :] for tensor in spec.inputs}
    sizes: list[int] = []
    shapes: dict[str, list[int]] = {}
    lost: list[str] = []
    for sample in config.model_warmup:
        if max_batch_size and sample.batch_size <= max_batch_size:
            sizes.append(sample.batch_size or 1)
        elif max_batch_size:
            lost.append(f"batch_size {sample.batch_size} is over {max_batch_size}")
        for name, tensor in sorted(sample.inputs.items()):
            if tensor.WhichOneof("input_data_type") in {"random_data", "input_data_file"}:
                lost.append(f"'{name}' is warmed with zeros")
            dims = list(tensor.dims)
            if free.get(name) and shapes.setdefault(name, dims) != dims:
                lost.append(f"'{name}' is warmed with one shape, {shapes[name]}")
        if sample.count > 1:
            lost.append(f"it runs once, not {sample.count} times")
    if lost:
        findings.append(Finding("model_warmup", Outcome.CHANGED, "; ".join(dict.fromkeys(lost))))
    found = {"batch_sizes": sorted(set(sizes)), "shapes": shapes}
    return {key: value for key, value in found.items() if value}
