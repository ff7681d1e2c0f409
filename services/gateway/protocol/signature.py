"""Does a request fit the model? Everything is checked here, before a queue slot is spent. Pure."""

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import prod

from headrace.inference.grpc_service_pb2 import InferTensorContents, ModelInferRequest
from headrace.v1.model_pb2 import ModelSpec, TensorSpec
from services.common.datatypes import DATATYPES, Datatype
from services.common.errors import InvalidArgument, Unimplemented

_INTEGER_RANGES = {"INT8": (-(2**7), 2**7), "INT16": (-(2**15), 2**15), "UINT8": (0, 2**8), "UINT16": (0, 2**16)}
_CONTENTS = {datatype.contents for datatype in DATATYPES.values() if datatype.contents}
_LENGTH = struct.Struct("<I")
# Of what an empty tensor would have but for its axes of 0: a sum over those would be as large.
_MOST_ELEMENTS = 2**26


@dataclass(frozen=True, slots=True)
class Input:
    """One input, out of its protobuf message: its fields are read for every request."""

    datatype: Datatype
    shape: tuple[int, ...]

    @classmethod
    def of(cls, spec: TensorSpec) -> "Input":
        """Takes it out."""
        return cls(DATATYPES[spec.datatype], tuple(spec.shape))

    def takes(self, shape: tuple[int, ...]) -> bool:
        """Whether a tensor of this rank may have this shape; -1 of ours stands for any size."""
        for size, want in zip(shape, self.shape, strict=True):  # noqa: SIM110  # a generator costs as much as the rest
            if size < 0 or (size != want and want >= 0):
                return False
        return True


@dataclass(frozen=True, slots=True)
class Signature:
    """A model's inputs and outputs, prepared for checking.

    Attributes:
        inputs: by name.
        max_batch_size: most rows in one request; 0: no batch axis.
        text: BYTES must be UTF-8, since the runtime's strings are text.
    """

    inputs: dict[str, Input]
    required: frozenset[str]
    outputs: frozenset[str]
    max_batch_size: int
    text: bool = False

    @classmethod
    def of(cls, spec: ModelSpec) -> "Signature":
        """Prepares a model's spec."""
        return cls(
            inputs={tensor.name: Input.of(tensor) for tensor in spec.inputs},
            required=frozenset(tensor.name for tensor in spec.inputs if not tensor.optional),
            outputs=frozenset(tensor.name for tensor in spec.outputs),
            max_batch_size=spec.batching.max_batch_size,
            text=spec.runtime in {"onnx", "embedding", "tokenizer", "ensemble"},
        )

    def check(self, request: ModelInferRequest) -> int:
        """Checks names, types, shapes and sizes; returns the number of rows (1 where the model has no batch axis).

        Raises:
            InvalidArgument: it does not fit; the message says where, what was there and what was expected.
            Unimplemented: it asks for shared memory or classification.
        """
        raws = request.raw_input_contents
        if raws and len(raws) != len(request.inputs):
            raise InvalidArgument(
                f"raw_input_contents has {len(raws)} entries for {len(request.inputs)} inputs; send one for each input,"
                " in the order of the inputs, or none and typed contents instead"
            )
        rows, seen = -1, set()
        for index, tensor in enumerate(request.inputs):
            name = tensor.name
            if name in seen:
                raise InvalidArgument(f"input '{name}' is given twice")
            seen.add(name)
            datatype, shape = self._check_header(name, tensor)
            if self.max_batch_size:
                rows = self._check_rows(name, shape[0], rows)
            elements = prod(shape)
            if not elements and prod(filter(None, shape)) > _MOST_ELEMENTS:
                raise InvalidArgument(
                    f"input '{name}' has shape {_shape(shape)}: nothing has axes of such sizes; make the others small"
                    " where one is 0"
                )
            if raws:
                if tensor.HasField("contents"):
                    raise InvalidArgument(f"input '{name}' has both typed contents and raw contents; send one")
                _check_raw(name, datatype, elements, raws[index])
            else:
                _check_typed(name, datatype, elements, tensor.contents)
            if self.text and not datatype.size:
                _check_text(name, _unpacked(raws[index]) if raws else tensor.contents.bytes_contents)
        if missing := self.required - seen:
            raise InvalidArgument(f"missing: {_names(missing)}; the model takes {_names(self.inputs)}")
        for output in request.outputs:
            self._check_output(output)
        return rows if rows >= 0 else 1

    def _check_header(self, name: str, tensor: ModelInferRequest.InferInputTensor) -> tuple[Datatype, tuple[int, ...]]:
        """Name, type, rank, sizes of the axes; returns the type and the shape."""
        spec = self.inputs.get(name)
        if spec is None:
            raise InvalidArgument(f"no input '{name[:128]}'; the model takes {_names(self.inputs)}")
        if tensor.datatype != spec.datatype.name:
            raise InvalidArgument(
                f"input '{name}' has datatype '{tensor.datatype[:32]}'; the model takes {spec.datatype.name}"
            )
        # The rank first: a shape of millions of axes is never taken out of its message.
        sizes = tensor.shape
        if len(sizes) != len(spec.shape) or not spec.takes(shape := tuple(sizes)):
            raise InvalidArgument(
                f"input '{name}' has shape {_shape(sizes)}; the model takes {_shape(spec.shape)} (-1: any size)"
            )
        if tensor.parameters:
            _refuse_shared_memory(f"input '{name}'", tensor.parameters)
        return spec.datatype, shape

    def _check_rows(self, name: str, size: int, rows: int) -> int:
        if rows >= 0 and size != rows:
            raise InvalidArgument(f"input '{name}' has {size} rows where another input has {rows}; all must agree")
        if not 1 <= size <= self.max_batch_size:
            raise InvalidArgument(
                f"input '{name}' has {size} rows; the model takes 1 to {self.max_batch_size} in one request,"
                " split larger ones"
            )
        return size

    def _check_output(self, output: ModelInferRequest.InferRequestedOutputTensor) -> None:
        if output.name not in self.outputs:
            raise InvalidArgument(f"no output '{output.name[:128]}'; the model gives {_names(self.outputs)}")
        if output.parameters:
            _refuse_shared_memory(f"output '{output.name}'", output.parameters)
            if "classification" in output.parameters:
                raise Unimplemented(f"output '{output.name}': classification is not offered; take the top k yourself")


def _check_raw(name: str, datatype: Datatype, elements: int, raw: bytes) -> None:
    if datatype.size:
        if len(raw) != elements * datatype.size:
            raise InvalidArgument(
                f"input '{name}' has {len(raw)} raw bytes; its shape and datatype {datatype.name} take"
                f" {elements * datatype.size}"
            )
        return
    offset = count = 0
    while offset < len(raw):
        if offset + 4 > len(raw):
            raise InvalidArgument(f"input '{name}': element {count} has no room for its 4-byte length")
        offset += 4 + _LENGTH.unpack_from(raw, offset)[0]
        count += 1
    if offset != len(raw) or count != elements:
        raise InvalidArgument(
            f"input '{name}' holds {count} length-prefixed elements"
            f"{' and its last one is cut off' if offset != len(raw) else ''}; its shape takes {elements}"
        )


def _unpacked(raw: bytes) -> Iterator[bytes]:
    """The elements of raw BYTES contents that were found well-formed."""
    offset = 0
    while offset < len(raw):
        start, offset = offset + 4, offset + 4 + _LENGTH.unpack_from(raw, offset)[0]
        yield raw[start:offset]


def _check_text(name: str, elements: Iterable[bytes]) -> None:
    for index, element in enumerate(elements):
        try:
            element.decode()
        except UnicodeDecodeError as error:
            raise InvalidArgument(
                f"input '{name}': element {index} is not UTF-8, and this model's strings are text; send text, or base64"
                " if the model decodes it"
            ) from error


def _check_typed(name: str, datatype: Datatype, elements: int, contents: InferTensorContents) -> None:
    if not datatype.contents:
        raise InvalidArgument(f"input '{name}': {datatype.name} has no typed contents; send raw_input_contents")
    for field, values in contents.ListFields():
        if field.name in _CONTENTS and field.name != datatype.contents:
            raise InvalidArgument(
                f"input '{name}' is {datatype.name} but fills contents.{field.name}; fill contents.{datatype.contents}"
            )
        if (bounds := _INTEGER_RANGES.get(datatype.name)) and (min(values) < bounds[0] or max(values) >= bounds[1]):
            raise InvalidArgument(f"input '{name}' has values outside the range of {datatype.name}")
    count = len(getattr(contents, datatype.contents))
    if count != elements:
        raise InvalidArgument(f"input '{name}' has {count} values in contents; its shape takes {elements}")


def _refuse_shared_memory(what: str, parameters: object) -> None:
    if "shared_memory_region" in parameters:  # type: ignore[operator]  # protobuf's map type
        raise Unimplemented(f"{what} lies in shared memory, which is not offered; send the contents")


def _names(names: object) -> str:
    return ", ".join(f"'{name}'" for name in sorted(names)) or "none"  # type: ignore[call-overload]


def _shape(shape: Sequence[int]) -> str:
    return str(list(shape[:16])) if len(shape) <= 16 else f"{list(shape[:16])[:-1]}… of {len(shape)} axes"
