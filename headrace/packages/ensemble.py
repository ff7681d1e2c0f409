"""`runtime: ensemble`: steps that name other models. The registry knows those, and does the checking."""

from headrace.packages.manifest_file import ManifestFile
from headrace.v1.model_pb2 import EnsembleSpec, ModelSpec

# The registry takes it for "as large as the members allow".
ANY_BATCH_SIZE = 65_536


def ensemble_spec(said: ManifestFile) -> ModelSpec:
    """What model.yaml says; maps, order and signature are left to the registry. Raises PackageError."""
    if not said.manifest.steps:
        raise said.refuse("missing; expected a list of models, each with `model:` and its maps", "steps")
    spec = ModelSpec(runtime="ensemble", entry=said.path.name, ensemble=EnsembleSpec())
    spec.batching.max_batch_size = ANY_BATCH_SIZE
    said.apply(spec)
    return spec
