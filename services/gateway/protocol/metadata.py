"""What a model is, in the protocol's words. Pure."""

from collections.abc import Callable

from headrace.inference.grpc_service_pb2 import ModelMetadataResponse
from headrace.inference.model_config_pb2 import (
    DataType,
    ModelConfig,
    ModelDynamicBatching,
    ModelEnsembling,
    ModelInput,
    ModelOutput,
    ModelQueuePolicy,
)
from headrace.v1.model_pb2 import EnsembleStep, TensorSpec
from services.common.errors import NotFound
from services.gateway.routes import Route

_PLATFORMS = {"onnx": "onnxruntime_onnx", "torch": "pytorch_libtorch"}
_BACKENDS = {"onnx": "onnxruntime", "torch": "pytorch", "ensemble": ""}
_TYPES = {"BYTES": "STRING"}


def model_metadata(route: Route, versions: list[Route]) -> ModelMetadataResponse:
    """Shapes hold the batch axis as -1, as the protocol wants it."""
    spec = route.spec_version.spec
    return ModelMetadataResponse(
        name=route.name,
        versions=[str(version.version) for version in versions],
        platform=_PLATFORMS.get(spec.runtime, spec.runtime),
        inputs=[_tensor(tensor) for tensor in spec.inputs],
        outputs=[_tensor(tensor) for tensor in spec.outputs],
    )


def model_config(route: Route, resolve: Callable[[str, str], Route]) -> ModelConfig:
    """Triton's configuration message; dims leave the batch axis out.

    Args:
        resolve: model and version → route; for the versions that an ensemble's steps name. May raise NotFound.
    """
    spec = route.spec_version.spec
    batched = spec.batching.max_batch_size > 0
    config = ModelConfig(
        name=route.name,
        platform=_PLATFORMS.get(spec.runtime, spec.runtime),
        backend=_BACKENDS.get(spec.runtime, spec.runtime),
        runtime=spec.runtime,
        max_batch_size=spec.batching.max_batch_size,
        default_model_filename=spec.entry,
        input=[
            ModelInput(
                name=tensor.name,
                data_type=_data_type(tensor.datatype),
                dims=_dims(tensor, batched),
                optional=tensor.optional,
                allow_ragged_batch=spec.batching.padding,
            )
            for tensor in spec.inputs
        ],
        output=[
            ModelOutput(name=tensor.name, data_type=_data_type(tensor.datatype), dims=_dims(tensor, batched))
            for tensor in spec.outputs
        ],
    )
    if route.text:
        # One request may have many responses.
        config.model_transaction_policy.decoupled = True
    if route.spec_version.spec.HasField("ensemble"):  # Triton's message has room for this or dynamic_batching
        config.ensemble_scheduling.step.extend(_step(step, resolve) for step in spec.ensemble.steps)
    elif batched:
        config.dynamic_batching.CopyFrom(
            ModelDynamicBatching(
                max_queue_delay_microseconds=spec.batching.max_queue_delay_us,
                priority_levels=route.levels,
                default_priority_level=route.level,
                default_queue_policy=ModelQueuePolicy(
                    default_timeout_microseconds=int(route.timeout * 1e6),
                    allow_timeout_override=True,
                    max_queue_size=route.max_requests,
                ),
            )
        )
    if not spec.HasField("ensemble"):
        # In each worker, on the device that it has.
        config.instance_group.add(name=route.name, count=max(1, spec.instances))
    for key, value in spec.parameters.items():
        config.parameters[key].string_value = value
    return config


def _step(step: EnsembleStep, resolve: Callable[[str, str], Route]) -> ModelEnsembling.Step:
    """With the number that the step's version is now; -1, Triton's "latest", where it is none."""
    try:
        number = resolve(step.model, step.version).version
    except NotFound:
        number = -1
    return ModelEnsembling.Step(
        model_name=step.model, model_version=number, input_map=step.input_map, output_map=step.output_map
    )


def _tensor(tensor: TensorSpec) -> ModelMetadataResponse.TensorMetadata:
    return ModelMetadataResponse.TensorMetadata(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)


def _data_type(name: str) -> DataType.ValueType:
    return DataType.Value(f"TYPE_{_TYPES.get(name, name)}")


def _dims(tensor: TensorSpec, batched: bool) -> list[int]:
    return list(tensor.shape[1:] if batched else tensor.shape)
