"""Settings of config.pbtxt without an equivalent: why, and what to do instead."""

from collections.abc import Iterator

from google.protobuf.message import Message

from headrace.inference.model_config_pb2 import ModelConfig
from headrace.triton.findings import Finding, Outcome, Refused

_GENERATED = "inputs and outputs that the server makes of the batch; put that into the graph"
_REFUSED = {
    "sequence_batching": "requests that share state on the server; pass the state as inputs and outputs of the graph",
    "batch_input": _GENERATED,
    "batch_output": _GENERATED,
}
_NO_CACHE = "answers are not cached; put a cache before the gateway"
_GRAPH = "how the runtime runs the graph is the worker's: ONNX Runtime's full optimisation, on the device it finds"
# Dotted names as in config.pbtxt.
_LEFT_OUT = {
    "runtime": "the runtime follows from the file",
    "optimization": _GRAPH,
    "cc_model_filenames": "one file serves every device; push another model name for another file",
    "metric_tags": "metrics carry model, version and worker",
    "model_metrics": "the buckets of the histograms are fixed",
    "model_operations": "libraries of custom operators are not loaded; export the graph with standard ones",
    "model_repository_agents": "files are checked by SHA-256 when they are pushed and when they are loaded",
    "response_cache": _NO_CACHE,
    "ensemble_scheduling.max_inflight_requests": "the queue's limit is queue.max_requests in model.yaml",
    "ensemble_scheduling.step.model_namespace": "names are the registry's: one model of each",
    "model_transaction_policy.decoupled": "a model of tensors answers once",
    "dynamic_batching.preferred_batch_size": "not needed: an idle worker runs what is there, at once; while it is busy"
    " the next batch gathers",
    "dynamic_batching.preserve_ordering": "each caller gets its own answer as soon as it is there",
    "dynamic_batching.priority_queue_policy": "limits are the model's, under queue in model.yaml, for all levels alike",
    "dynamic_batching.default_queue_policy.timeout_action": "what is late is dropped; headrace-priority: background"
    " lets a request go last",
    "dynamic_batching.default_queue_policy.default_timeout_microseconds": "it bounds waiting only; here the caller's"
    " deadline covers the whole call, and queue.default_timeout_ms in model.yaml is for calls that bring none",
    "dynamic_batching.default_queue_policy.allow_timeout_override": "each call may bring its own deadline",
    "input.format": "nothing depends on it: the shape is what counts",
    "input.is_shape_tensor": "only TensorRT has these",
    "input.is_non_linear_format_io": "only TensorRT has these",
    "input.allow_ragged_batch": "requests of different shapes run in batches of their own; padding: true under"
    " batching in model.yaml pads them into one",
    "input.optional": "callers send every input",
    "output.label_filename": "there is no classification extension; the caller turns the best index into a label",
    "output.is_shape_tensor": "only TensorRT has these",
    "output.is_non_linear_format_io": "only TensorRT has these",
}
# What convert.py and ensemble.py carry over, or have findings of their own for.
_CARRIED = {
    "name",
    "platform",
    "backend",
    "version_policy",
    "max_batch_size",
    "instance_group",
    "default_model_filename",
    "parameters",
    "model_warmup",
    "dynamic_batching.max_queue_delay_microseconds",
    "dynamic_batching.priority_levels",
    "dynamic_batching.default_priority_level",
    "dynamic_batching.default_queue_policy.max_queue_size",
    *(f"ensemble_scheduling.step.{name}" for name in ("model_name", "model_version", "input_map", "output_map")),
    *(f"{kind}.{name}" for kind in ("input", "output") for name in ("name", "data_type", "dims", "reshape")),
}
# Messages that are looked into; of the rest the whole is one row.
_OPENED = {
    "dynamic_batching",
    "dynamic_batching.default_queue_policy",
    "ensemble_scheduling",
    "ensemble_scheduling.step",
    "input",
    "output",
    "model_transaction_policy",
}


def left_out(config: ModelConfig) -> list[Finding]:
    """A row for each setting that has no equivalent; also for those that a later Triton may bring.

    Raises:
        Refused: the model would not do what it did without the setting.
    """
    for name, reason in _REFUSED.items():
        if any(descriptor.name == name for descriptor, _ in config.ListFields()):
            raise Refused(name, reason)
    names = dict.fromkeys(name for name in _names(config, "") if name not in _CARRIED)
    return [Finding(name, Outcome.LEFT_OUT, _LEFT_OUT.get(name, "it has no equivalent here")) for name in names]


def _names(message: Message, prefix: str) -> Iterator[str]:
    """The dotted names of all that is set."""
    for descriptor, value in message.ListFields():
        name = f"{prefix}{descriptor.name}"
        if name not in _OPENED:
            yield name
            continue
        for part in [value] if isinstance(value, Message) else value:
            yield from _names(part, f"{name}.")
