"""The port of a loaded model."""

from typing import Protocol

from services.common.tensors import Array


class LoadedModel(Protocol):
    """A model in memory. Called from one thread at a time, unless its package asks for more `instances`."""

    @property
    def device(self) -> str:
        """Where it runs: "cpu", "cuda:0"."""

    def run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        """Input name → array in, output name → array out. Whatever it raises fails the batch."""
