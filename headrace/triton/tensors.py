"""Inputs and outputs: what config.pbtxt says of them, held against the model's own signature."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from headrace.inference.model_config_pb2 import DataType, ModelInput, ModelOutput
from headrace.triton.findings import Finding, Outcome, Refused
from headrace.v1.model_pb2 import TensorSpec

_TYPES = {"STRING": "BYTES"}
_TOO = "; Triton refuses that, too"


@dataclass(frozen=True, slots=True)
class Side:
    """The inputs or the outputs of a model.

    Args:
        kind: "input" or "output".
        tensors: the model's own.
        batched: the config's dims leave the batch axis out.
        by_position: as Triton's PyTorch backend does, whose names are its own.
    """

    kind: str
    tensors: list[TensorSpec]
    batched: bool
    by_position: bool

    def shapes(self, said: Sequence[ModelInput | ModelOutput], findings: list[Finding]) -> dict[str, Any]:
        """Sizes that the config knows and the model leaves open, by the model's names.

        Raises:
            Refused: config and model do not fit.
        """
        if not said:
            return {}
        shapes = {}
        named = set()
        for index, tensor in enumerate(said):
            known = self._match(tensor.name, index, findings)
            named.add(known.name)
            self._check_type(tensor, known)
            shape = self._shape(tensor, known.name, findings)
            if shape is not None and shape != list(known.shape):
                self._check_shape(shape, known)
                shapes[known.name] = {"shape": shape}
        self._check_rest([tensor.name for tensor in self.tensors if tensor.name not in named], findings)
        return shapes

    def _match(self, name: str, index: int, findings: list[Finding]) -> TensorSpec:
        for tensor in self.tensors:
            if tensor.name == name:
                return tensor
        if self.by_position and index < len(self.tensors):
            own = self.tensors[index]
            reason = f"callers use '{own.name}' instead of '{name}'"
            findings.append(Finding(f"{self.kind}.name", Outcome.CHANGED, reason))
            return own
        names = ", ".join(tensor.name for tensor in self.tensors) or "none"
        raise Refused(f"{self.kind}.name", f"the model has no {self.kind} '{name}'; it has {names}{_TOO}")

    def _check_type(self, tensor: ModelInput | ModelOutput, known: TensorSpec) -> None:
        name = DataType.Name(tensor.data_type).removeprefix("TYPE_")
        if name not in {"INVALID", known.datatype} and _TYPES.get(name) != known.datatype:
            raise Refused(f"{self.kind}.data_type", f"'{known.name}' is {name}, the model says {known.datatype}{_TOO}")

    def _shape(self, tensor: ModelInput | ModelOutput, name: str, findings: list[Finding]) -> list[int] | None:
        """The whole shape as the model sees it; None: the config does not say."""
        item = list(tensor.dims)
        if tensor.HasField("reshape"):
            item = list(tensor.reshape.shape)
            reason = f"callers use the model's own shape of '{name}', {item} for one item, not {list(tensor.dims)}"
            findings.append(Finding(f"{self.kind}.reshape", Outcome.CHANGED, reason))
        elif not item:
            return None
        return [-1, *item] if self.batched else item

    def _check_shape(self, shape: list[int], known: TensorSpec) -> None:
        own = list(known.shape)
        if own and not (len(own) == len(shape) and all(a in {-1, b} for a, b in zip(own, shape, strict=True))):
            raise Refused(f"{self.kind}.dims", f"'{known.name}' is {shape}, but the model says {own}{_TOO}")

    def _check_rest(self, names: list[str], findings: list[Finding]) -> None:
        """What the config leaves out."""
        if names and self.kind == "input":
            raise Refused("input", f"the model takes {', '.join(names)}, too, which config.pbtxt leaves out{_TOO}")
        if names:
            reason = f"{', '.join(names)}: served, too; callers may name the outputs that they want"
            findings.append(Finding("output", Outcome.CHANGED, reason))
