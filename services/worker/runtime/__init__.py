"""What runs a model: one port, one file for each runtime, and the place that picks."""

from pathlib import Path

from headrace.v1.model_pb2 import ModelSpec
from services.common.errors import FailedPrecondition
from services.worker.runtime.port import LoadedModel

# Where the extra that brings a runtime has another name.
_EXTRAS = {"embedding": "llm"}


def load_model(folder: Path, spec: ModelSpec, threads: int) -> LoadedModel:
    """Loads a version's files with the runtime that its spec names. Blocks.

    Raises:
        FailedPrecondition: no such runtime here, or the files do not load; the message says why.
    """
    path = folder / spec.entry
    try:
        if spec.runtime == "onnx":
            from services.worker.runtime.onnx import OnnxModel  # noqa: PLC0415  # only what the model needs

            return OnnxModel(path, threads)
        if spec.runtime == "torch":
            from services.worker.runtime.torch import TorchModel  # noqa: PLC0415

            return TorchModel(path, spec, threads)
        if spec.runtime == "embedding":
            from services.worker.runtime.embedding import EmbeddingModel  # noqa: PLC0415

            return EmbeddingModel(folder, spec.embedding, threads)
        if spec.runtime == "tokenizer":
            from services.worker.runtime.tokenizer import TokenizerModel  # noqa: PLC0415

            return TokenizerModel(path, spec.tokenizer)
        if spec.runtime == "identity":
            from services.worker.runtime.identity import IdentityModel  # noqa: PLC0415

            return IdentityModel(spec)
    except ImportError as error:
        raise FailedPrecondition(
            f"runtime '{spec.runtime}' is not installed on this worker ({error}); pip install"
            f" 'headrace[worker-{_EXTRAS.get(spec.runtime, spec.runtime)}]'"
        ) from error
    raise FailedPrecondition(
        f"no runtime '{spec.runtime}'; known are 'onnx', 'torch', 'embedding', 'tokenizer' and 'identity'"
    )
