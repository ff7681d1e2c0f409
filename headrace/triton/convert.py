"""From config.pbtxt and the model's own signature to model.yaml."""

from typing import Any

from headrace.inference.model_config_pb2 import ModelConfig
from headrace.packages.manifest import CONCURRENT, DEFAULT_MAX_BATCH_SIZE, MOST_INSTANCES
from headrace.packages.manifest_parts import MOST_LEVELS
from headrace.triton.findings import Finding, Outcome, Refused
from headrace.triton.left_out import left_out
from headrace.triton.tensors import Side
from headrace.triton.warmup import warmup
from headrace.v1.model_pb2 import ModelSpec

Manifest = dict[str, Any]


def convert(config: ModelConfig, spec: ModelSpec) -> tuple[Manifest, list[Finding]]:
    """What model.yaml is to say beside runtime and entry, and what could not be said.

    Args:
        config: an empty one says nothing: the graph decides, as with Triton.
        spec: what the file itself implies.

    Raises:
        Refused: config and graph do not fit, or the model would not do what it did.
    """
    findings = left_out(config)
    manifest: Manifest = {}
    batching = _batching(config, spec, findings)
    batched, torch = config.max_batch_size > 0, spec.runtime == "torch"
    if shapes := Side("input", list(spec.inputs), batched, by_position=torch).shapes(config.input, findings):
        manifest["inputs"] = shapes
    if shapes := Side("output", list(spec.outputs), batched, by_position=torch).shapes(config.output, findings):
        manifest["outputs"] = shapes
    if batching:
        manifest["batching"] = batching
    if queue := _queue(config, findings):
        manifest["queue"] = queue
    if warm := warmup(config, spec, batching.get("max_batch_size", spec.batching.max_batch_size), findings):
        manifest["warmup"] = warm
    if spec.runtime in CONCURRENT and (count := sum(max(1, group.count) for group in config.instance_group)) > 1:
        manifest["instances"] = min(count, MOST_INSTANCES)
    if config.parameters:
        manifest["parameters"] = parameters(config)
    findings.extend(changed(config))
    return manifest, findings


def parameters(config: ModelConfig) -> dict[str, str]:
    """All of them, as text."""
    return {key: config.parameters[key].string_value for key in sorted(config.parameters)}


def changed(config: ModelConfig) -> list[Finding]:
    """Rows for what is served, but not as it was, whatever the model is."""
    found = []
    if config.parameters:
        names = ", ".join(sorted(config.parameters))
        reason = f"{names}: kept as text that ModelConfig shows; none changes how the model runs"
        found.append(Finding("parameters", Outcome.CHANGED, reason))
    if config.instance_group:
        reason = (
            "the count of an ONNX model becomes instances, in each worker; other models run one batch at a time there."
            " Devices are the worker's: headrace up --workers N, or FEWEST..MOST"
        )
        found.append(Finding("instance_group", Outcome.CHANGED, reason))
    return found


def _batching(config: ModelConfig, spec: ModelSpec, findings: list[Finding]) -> Manifest:
    batching: Manifest = {}
    if config.max_batch_size > 0:
        batching["max_batch_size"] = _max_batch_size(config.max_batch_size, spec, findings)
    elif config.input or config.output:
        # Its dims are whole shapes then: there is no batch axis, whatever the graph has.
        batching["max_batch_size"] = 0
    if delay := config.dynamic_batching.max_queue_delay_microseconds:
        batching["max_queue_delay_us"] = delay
    return batching


def _queue(config: ModelConfig, findings: list[Finding]) -> Manifest:
    queue: Manifest = {}
    batching = config.dynamic_batching
    if size := batching.default_queue_policy.max_queue_size:
        queue["max_requests"] = size
        reason = f"queue.max_requests: {size} counts what each gateway has admitted and not answered"
        findings.append(Finding("dynamic_batching.default_queue_policy.max_queue_size", Outcome.CHANGED, reason))
    if levels := batching.priority_levels:
        default = batching.default_priority_level
        if not 1 <= default <= levels:
            raise Refused(
                "dynamic_batching.default_priority_level",
                f"{default}, expected 1 to the {levels} of priority_levels; Triton refuses that, too",
            )
        if levels > MOST_LEVELS:
            raise Refused("dynamic_batching.priority_levels", f"{levels}, but {MOST_LEVELS} is the most")
        queue["priority_levels"], queue["default_priority_level"] = levels, default
        if levels > 1:
            reason = (
                "a request whose priority is above them is refused, where Triton takes it for the default; and levels"
                " are an order among one tenant's requests"
            )
            findings.append(Finding("dynamic_batching.priority_levels", Outcome.CHANGED, reason))
    return queue


def _max_batch_size(wanted: int, spec: ModelSpec, findings: list[Finding]) -> int:
    possible = spec.batching.max_batch_size
    if possible:
        if possible < min(wanted, DEFAULT_MAX_BATCH_SIZE):
            reason = f"the archive was exported for {possible} rows at most, not {wanted}"
            findings.append(Finding("max_batch_size", Outcome.CHANGED, reason))
            return possible
        return wanted
    if not all(tensor.shape and tensor.shape[0] == -1 for tensor in [*spec.inputs, *spec.outputs]):
        raise Refused(
            "max_batch_size", f"{wanted}, but the first axes of the model are not all free; Triton refuses that, too"
        )
    reason = "the first axes have different names in the graph, so every request runs alone; export it with one name"
    findings.append(Finding("max_batch_size", Outcome.CHANGED, reason))
    return 0
