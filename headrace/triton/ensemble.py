"""Triton's ensembles: steps that name other models, which is what `runtime: ensemble` is, too."""

from collections.abc import Container
from typing import Any

from headrace.inference.model_config_pb2 import ModelConfig, ModelInput, ModelOutput
from headrace.triton.convert import changed, parameters
from headrace.triton.findings import Finding, Outcome, Refused
from headrace.triton.left_out import left_out


def is_ensemble(config: ModelConfig) -> bool:
    """Whether the model is steps and has no file."""
    return config.platform == "ensemble" or config.HasField("ensemble_scheduling")


def convert_ensemble(config: ModelConfig, refused: Container[str]) -> tuple[dict[str, Any], list[Finding]]:
    """What model.yaml is to say, and what could not be said; the registry holds the steps against their models.

    Args:
        refused: models of the same repository that are not imported.

    Raises:
        Refused: there are no steps, or one of them names a model that is not imported.
    """
    findings = [*left_out(config), *changed(config)]
    steps = []
    for step in config.ensemble_scheduling.step:
        if step.model_name in refused:
            raise Refused("ensemble_scheduling.step", f"'{step.model_name}' is not imported; see its own line")
        # Triton follows the latest version where a step says -1, or nothing.
        version = str(step.model_version) if step.model_version > 0 else "latest"
        maps = {"input_map": dict(step.input_map), "output_map": dict(step.output_map)}
        steps.append({"model": step.model_name, "version": version, **maps})
    if not steps:
        raise Refused("ensemble_scheduling", "an ensemble without steps; Triton refuses that, too")
    if config.model_warmup:
        findings.append(Finding("model_warmup", Outcome.LEFT_OUT, "the models of the steps are warmed by themselves"))
    manifest: dict[str, Any] = {"runtime": "ensemble", "steps": steps}
    for kind, tensors in (("inputs", config.input), ("outputs", config.output)):
        manifest[kind] = {tensor.name: {"shape": _shape(tensor, config.max_batch_size > 0)} for tensor in tensors}
    manifest["batching"] = {"max_batch_size": config.max_batch_size}
    if config.parameters:
        manifest["parameters"] = parameters(config)
    return manifest, findings


def _shape(tensor: ModelInput | ModelOutput, batched: bool) -> list[int]:
    if tensor.HasField("reshape"):
        raise Refused("reshape", f"'{tensor.name}': put the shape that the step's model has into dims")
    return [-1, *tensor.dims] if batched else list(tensor.dims)
