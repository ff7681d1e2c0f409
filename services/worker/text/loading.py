"""From a version's files to a language model in memory, by the runtime that its spec names."""

from collections.abc import Awaitable, Callable
from pathlib import Path

from headrace.v1.model_pb2 import ModelSpec
from services.common.errors import FailedPrecondition
from services.worker.text.model import TextModel

RUNTIMES = ("openai",)


def text_opener(spec: ModelSpec, threads: int) -> Callable[[Path], Awaitable[TextModel]]:
    """Opens the model of a folder. Raises FailedPrecondition where it does not load; the message says why."""

    async def open_model(folder: Path) -> TextModel:
        try:
            if spec.runtime == "openai":
                from services.worker.runtime.openai import RemoteEngine, RemotePrompts  # noqa: PLC0415

                return TextModel(RemoteEngine(spec.text.remote, spec.text.max_num_seqs), RemotePrompts(), "remote")
        except ImportError as error:
            raise FailedPrecondition(
                f"runtime '{spec.runtime}' is not installed on this worker ({error}); pip install"
                f" 'headrace[worker-{spec.runtime}]'"
            ) from error
        raise FailedPrecondition(f"no runtime '{spec.runtime}' for language models; known are {', '.join(RUNTIMES)}")

    return open_model
